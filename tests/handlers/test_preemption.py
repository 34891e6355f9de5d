"""A run whose machine is taken away is saved at the next step, and its process ends as the scheduler wants it."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from leyden.engine import Engine, Events, Stage
from leyden.handlers import Evaluate
from leyden.handlers.preemption import Preemption

SCRIPT = Path(__file__).parent / "scripts" / "preempted_run.py"


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    """Whatever a test does, no handler of ours is left."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    yield
    after = {each: signal.getsignal(each) for each in before}
    for each, handler in before.items():
        signal.signal(each, handler)
    assert after == before


def trainer_with(*handlers, at=None, number=signal.SIGTERM):
    """An engine that does nothing, and gets a signal after iteration `at`; the names of its last events."""
    trainer = Engine(lambda engine, batch: batch)
    seen = []
    for event in (Events.INTERRUPT, Events.COMPLETED, Events.CLOSED):
        trainer.add_event_handler(event, seen.append, event.name)
    if at is not None:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=at), signal.raise_signal, number)
    trainer.attach(*handlers)
    return trainer, seen


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)])
def test_the_running_iteration_ends_and_the_process_with_it(number, code) -> None:
    preemption = Preemption()
    trainer, seen = trainer_with(preemption, at=3, number=number)
    with pytest.raises(SystemExit) as ended:
        trainer.run(range(10))
    assert ended.value.code == code
    assert trainer.state.iteration == 3
    assert seen == ["INTERRUPT", "CLOSED"]
    assert preemption.received is number


def test_the_exit_code_that_a_scheduler_wants() -> None:
    trainer, _ = trainer_with(Preemption(exit_code=85), at=3)
    with pytest.raises(SystemExit) as ended:
        trainer.run(range(10))
    assert ended.value.code == 85


def test_run_returns_where_the_script_shall_go_on() -> None:
    preemption = Preemption(exits=False)
    trainer, seen = trainer_with(preemption, at=3)
    assert trainer.run(range(10)).iteration == 3
    assert preemption.received is signal.SIGTERM
    assert trainer.run(range(10)).iteration == 10  # as after any interrupt
    assert preemption.received is None
    assert seen == ["INTERRUPT", "CLOSED", "COMPLETED", "CLOSED"]


def test_no_signal_no_end() -> None:
    trainer, seen = trainer_with(Preemption())
    trainer.run(range(3))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), trainer.interrupt)
    trainer.run(range(3), max_epochs=3)
    assert seen == ["COMPLETED", "CLOSED", "INTERRUPT", "CLOSED"]


def test_a_signal_in_the_last_iteration_ends_the_process_of_a_run_that_is_done() -> None:
    trainer, seen = trainer_with(Preemption())
    trainer.add_event_handler(Events.COMPLETED, signal.raise_signal, signal.SIGTERM)
    with pytest.raises(SystemExit):
        trainer.run(range(3))
    assert trainer.state.iteration == 3
    assert seen == ["COMPLETED", "CLOSED"]


def test_a_second_control_c_ends_at_once() -> None:
    trainer, seen = trainer_with(Preemption(), at=3, number=signal.SIGINT)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(range(10))
    assert seen == ["CLOSED"]


def test_a_save_that_fails_is_the_error_that_is_raised() -> None:
    trainer, _ = trainer_with(Preemption(), at=3)

    @trainer.on(Events.INTERRUPT)
    def save():
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        trainer.run(range(10))


def test_an_error_of_cleaning_up_is_raised_and_everything_is_cleaned_up() -> None:
    trainer, seen = trainer_with(Preemption(), at=3)

    @trainer.on(Events.CLOSED, order=2000)
    def write_the_rest():
        seen.append("last")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        trainer.run(range(10))
    assert seen == ["INTERRUPT", "CLOSED", "last"]


def test_handlers_of_before_hear_again_after_the_run() -> None:
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        trainer, _ = trainer_with(Preemption(exits=False), at=2, number=signal.SIGUSR1)
        trainer.run(range(5))
        assert heard == []
        signal.raise_signal(signal.SIGUSR1)
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_signals_that_are_not_named_are_left_alone() -> None:
    trainer, _ = trainer_with(Preemption("SIGUSR1"))
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_STARTED(once=1),
        lambda: seen.extend([signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]),
    )
    trainer.run(range(2))
    assert seen == [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]


def test_in_another_thread_it_warns_and_can_be_told() -> None:
    preemption = Preemption()
    trainer, seen = trainer_with(preemption)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=3), preemption.notify)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=trainer.run, args=(range(10),))
        thread.start()
        thread.join(30)
    assert "can't listen for signals, because run() was called in another thread" in str(caught[0].message)
    assert trainer.state.iteration == 3
    assert seen == ["INTERRUPT", "CLOSED"]


@pytest.mark.parametrize("when", ["before the run", "as it is set up"])
def test_told_before_there_is_a_step_the_run_ends_as_it_starts(when) -> None:
    preemption = Preemption(exits=False)
    trainer, seen = trainer_with(preemption)
    if when == "before the run":
        preemption.notify()
    else:
        trainer.setup.add(Stage.DEVICE, preemption.notify)
    trainer.run(range(10))
    assert (trainer.state.iteration, preemption.received) == (0, signal.SIGTERM)
    assert seen == ["INTERRUPT", "CLOSED"]
    trainer.run(range(10))  # told once
    assert (trainer.state.iteration, preemption.received) == (10, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"signals": ["SIGTRM"]}, "there is no signal 'SIGTRM' here; there are: .*SIGTERM"),
        ({"signals": ["SIGKILL"]}, "no process can catch SIGKILL"),
        ({"signals": []}, "at least one signal"),
        ({"exit_code": 256}, "a number from 0 to 255, but got exit_code=256"),
        ({"requeue": "pbs"}, "can requeue=\"slurm\", or not .None., but got 'pbs'"),
    ],
)
def test_mistakes(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        Preemption(**arguments)


def test_in_an_evaluation_it_ends_there_and_goes_on_there() -> None:
    preemption = Preemption(exits=False)
    trainer, seen = trainer_with(preemption)
    evaluator = Engine(lambda engine, batch: batch, training=False)
    batches = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: batches.append(evaluator.state.batch))
    first = evaluator.add_event_handler(Events.ITERATION_STARTED(once=3), signal.raise_signal, signal.SIGTERM)
    trainer.attach(Evaluate(evaluator, range(5)))
    data = range(10, 14)
    trainer.run(data)
    assert (preemption.received, batches) == (signal.SIGTERM, [0, 1, 2])
    first.remove()
    trainer.run(data)
    assert batches == [0, 1, 2, 3, 4]
    assert trainer.state.iteration == 4
    assert seen == ["INTERRUPT", "CLOSED", "COMPLETED", "CLOSED"]


def test_only_one_of_them() -> None:
    with pytest.raises(ValueError, match="a signal is handled once; attach one of them"):
        trainer_with(Preemption(), Preemption())


# -- SLURM: no cluster here; a scontrol of our own on PATH notes what it is asked for ---------------------------


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Makes a scontrol that notes its arguments and ends with a code; gives a function to read what was noted."""
    calls = tmp_path / "calls"
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)

    def make(code=0):
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin" / "scontrol"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {calls}\necho "Requested operation is disabled" >&2\nexit {code}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return make


def ends_at(number, preemption):
    trainer, _ = trainer_with(preemption, at=3, number=number)
    with pytest.raises(SystemExit):
        trainer.run(range(10))


def test_a_job_of_slurm_is_requeued(scontrol, monkeypatch) -> None:
    calls = scontrol()
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    ends_at(signal.SIGUSR1, Preemption(requeue="slurm"))
    assert calls() == ["requeue 1234"]
    ends_at(signal.SIGINT, Preemption(requeue="slurm"))  # somebody wanted it to end
    assert calls() == ["requeue 1234"]


def test_of_an_array_only_this_task_is_requeued(scontrol, monkeypatch) -> None:
    calls = scontrol()
    for name, value in {"JOB_ID": "77", "ARRAY_JOB_ID": "77", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    ends_at(signal.SIGTERM, Preemption(requeue="slurm"))
    assert calls() == ["requeue 77_3"]


def test_outside_of_slurm_nothing_is_requeued(scontrol, caplog) -> None:
    calls = scontrol()
    ends_at(signal.SIGTERM, Preemption(requeue="slurm"))
    assert calls() == []
    assert "nothing is requeued: this is no job of SLURM" in caplog.text


def test_a_requeue_that_slurm_refuses_is_told(scontrol, monkeypatch, caplog) -> None:
    scontrol(code=1)
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    ends_at(signal.SIGTERM, Preemption(requeue="slurm"))
    assert "SLURM job 1234 could not be requeued" in caplog.text
    assert "Requested operation is disabled" in caplog.text


def test_a_missing_scontrol_is_told_when_the_run_begins(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    trainer, _ = trainer_with(Preemption(requeue="slurm"))
    with pytest.warns(UserWarning, match="scontrol is not on PATH"):
        trainer.run(range(2))


def test_a_run_that_failed_is_not_requeued(scontrol, monkeypatch) -> None:
    calls = scontrol()
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    trainer, _ = trainer_with(Preemption(requeue="slurm"), at=3)
    trainer.add_event_handler(Events.INTERRUPT, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.run(range(10))
    assert calls() == []


# -- real processes -------------------------------------------------------------------------------------------


def start(directory, *settings, launcher=()):
    """A process group of its own, that has begun to train."""
    directory.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), str(directory), *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = directory / "log-0"
    before = log.stat().st_size if log.exists() else 0
    limit = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit:
        if log.exists() and log.stat().st_size > before + 100:
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"it did not begin to train: {process.communicate()[0]}")


def finish(process, limit=60):
    try:
        return process.communicate(timeout=limit)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def losses(directory, rank=0):
    """Losses by iteration, of which none came twice."""
    lines = [line.split() for line in (directory / f"log-{rank}").read_text().splitlines()]
    assert len(lines) == len({number for number, _ in lines})
    return dict(lines)


def test_a_signal_to_the_whole_group_finds_the_loaders_workers_alive(tmp_path) -> None:
    """As SLURM and torchrun send it. The same command again goes on as if nothing had been."""
    process = start(tmp_path / "run", "workers=2")
    os.killpg(process.pid, signal.SIGTERM)
    output = finish(process)
    assert process.returncode == 143, output
    assert "SIGTERM ended the run at epoch 1" in output
    assert "after the run" not in output
    stopped = len(losses(tmp_path / "run"))
    again = start(tmp_path / "run", "workers=2", "pause=0", f"steps={stopped + 60}")
    output = finish(again)
    assert again.returncode == 0, output
    assert "after the run None" in output
    assert len(losses(tmp_path / "run")) == stopped + 60


@pytest.mark.slow
def test_workers_end_with_the_process_that_is_killed(tmp_path) -> None:
    import psutil

    process = start(tmp_path / "run", "workers=2")
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=20)[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_torchrun_gets_reaches_the_ranks(number, tmp_path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(tmp_path / "run", "workers=2", launcher=torchrun)
    process.send_signal(number)
    output = finish(process)
    assert f"{number.name} ended the run at epoch" in output
    first, second = losses(tmp_path / "run"), losses(tmp_path / "run", 1)
    assert first.keys() == second.keys()
    assert [path.name[-8:] for path in (tmp_path / "run" / "kept").iterdir()] == [f"{len(first):08d}"]


@pytest.mark.slow
def test_a_signal_to_one_rank_ends_all_after_the_same_iteration(tmp_path) -> None:
    import psutil

    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(tmp_path / "run", "code=85", launcher=torchrun)
    ranks = [each for each in psutil.Process(process.pid).children() if "preempted_run.py" in " ".join(each.cmdline())]
    assert len(ranks) == 2
    ranks[1].send_signal(signal.SIGUSR1)
    output = finish(process)
    assert process.returncode != 0
    assert "exitcode  : 85" in output
    assert losses(tmp_path / "run").keys() == losses(tmp_path / "run", 1).keys()
    (kept,) = (tmp_path / "run" / "kept").iterdir()
    assert kept.name.endswith(f"{len(losses(tmp_path / 'run')):08d}")


def test_an_evaluators_workers_stay_alive_too() -> None:
    trainer, _ = trainer_with(Preemption())
    evaluator = Engine(lambda engine, batch: batch, training=False)
    trainer.attach(Evaluate(evaluator, range(2)))
    trainer.run(range(2))
    assert "SEED  Preemption" in str(evaluator)
