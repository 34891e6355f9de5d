"""One run at a time writes to a directory; who it is, and whether it lives, is told by its mark there."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint, DirectoryInUseError, verify
from leyden.handlers.checkpoint.store import lock
from leyden.handlers.checkpoint.store.paths import to_path

SCRIPT = Path(__file__).parent / "scripts" / "kept_run.py"
LOCK = ".lock"


def start(kept, epochs=100_000):
    return subprocess.Popen([sys.executable, str(SCRIPT), str(kept), os.devnull, str(epochs)])


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A process that trains and saves, and its directory."""
    kept = tmp_path_factory.mktemp("running") / "kept"
    process = start(kept)
    try:
        wait_for(lambda: list(kept.glob("epoch=*")))
        yield process, kept
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def hasty(monkeypatch):
    """Signs of life are given and missed within fractions of a second."""
    monkeypatch.setattr(lock, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(lock, "SILENT_FOR", 0.5)


def test_a_second_run_is_told_who_has_the_directory_and_changes_nothing(running, make_run) -> None:
    process, kept = running
    mark = (kept / LOCK).read_bytes()
    run = make_run(Checkpoint(kept, resume="auto"))
    told = (
        rf"another run writes its checkpoints to {kept} by process {process.pid} of .*, since 20.*directory of its own"
    )
    with pytest.raises(DirectoryInUseError, match=told):
        run.trainer.run(run.data, max_epochs=3)
    assert run.losses == []
    assert process.poll() is None
    assert (kept / LOCK).read_bytes() == mark
    assert os.path.exists(kept / LOCK)


def test_a_run_that_stands_still_still_has_its_directory(running, make_run) -> None:
    process, kept = running
    process.send_signal(signal.SIGSTOP)
    run = make_run(Checkpoint(kept, resume="auto"))
    with pytest.raises(DirectoryInUseError, match=f"process {process.pid}"):
        run.trainer.run(run.data, max_epochs=3)
    process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("reaped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_a_killed_run_left_is_taken_over_at_once(reaped, tmp_path) -> None:
    kept = tmp_path / "kept"
    process = start(kept)
    wait_for(lambda: list(kept.glob("epoch=*")))
    process.kill()
    if reaped:
        process.wait()
    else:
        wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert (kept / LOCK).exists()
    assert start(kept, 1).wait(60) == 0
    assert not (kept / LOCK).exists()
    process.wait()


def test_during_a_run_there_is_a_mark_and_afterwards_none(make_run, tmp_path) -> None:
    kept = tmp_path / "kept"
    run = make_run(Checkpoint(kept))
    seen = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: seen.append(json.loads((kept / LOCK).read_bytes())))
    run.trainer.run(run.data, max_epochs=1)
    run.trainer.run(run.data, max_epochs=2)
    assert {each["pid"] for each in seen} == {os.getpid()}
    assert len({each["token"] for each in seen}) == 2
    assert not (kept / LOCK).exists()


def test_a_run_that_fails_gives_the_directory_back(make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path / "kept"))

    @run.trainer.on(Events.ITERATION_STARTED)
    def fail():
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        run.trainer.run(run.data, max_epochs=1)
    assert not (tmp_path / "kept").exists()  # made for the run, and nothing came to lie there


def test_two_engines_of_one_process(make_run, tmp_path) -> None:
    outer, inner = make_run(Checkpoint(tmp_path)), make_run(Checkpoint(tmp_path))
    outer.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: inner.trainer.run(inner.data, max_epochs=1))
    with pytest.raises(DirectoryInUseError, match=f"by process {os.getpid()} of"):
        outer.trainer.run(outer.data, max_epochs=1)
    assert not (tmp_path / LOCK).exists()


def test_a_dry_run_leaves_no_mark_and_minds_none(running, make_run) -> None:
    from leyden.handlers import DryRun

    run = make_run(DryRun(1), Checkpoint(running[1], resume="auto"))
    run.trainer.run(run.data, max_epochs=1)
    assert len(run.losses) >= 1


def mark(**changes):
    """The mark of a run on another machine."""
    values = {"token": "t", "since": "2026-01-01T00:00:00+00:00", "beat": 0, "at": time.time()}
    values |= {"host": "another-host", "machine": "m", "pid": 7, "started": "1"}
    return json.dumps(values | changes).encode()


KINDS = ["local", "memory"]


@pytest.fixture(params=KINDS)
def kept(request, tmp_path):
    """An empty directory, local or in memory."""
    if request.param == "local":
        (tmp_path / "kept").mkdir()
        return tmp_path / "kept"
    return to_path(f"memory://locked/{uuid.uuid4().hex}")


def test_a_run_of_another_machine_that_gives_signs_of_life(kept, hasty, make_run) -> None:
    (kept / LOCK).write_bytes(mark())
    run = make_run(Checkpoint(kept))
    read, reads = type(kept).read_bytes, []

    def beating(path):
        if path.name == LOCK:
            reads.append(path)
            if len(reads) == 4:
                path.write_bytes(mark(beat=1, at=time.time() + 1))
        return read(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(kept), "read_bytes", beating)
        with pytest.raises(DirectoryInUseError, match="by process 7 of another-host, since 2026-01-01"):
            run.trainer.run(run.data, max_epochs=1)
    assert json.loads((kept / LOCK).read_bytes())["token"] == "t"


def test_a_run_of_another_machine_that_is_silent_is_taken_for_dead(kept, hasty, make_run, caplog) -> None:
    (kept / LOCK).write_bytes(mark())
    run = make_run(Checkpoint(kept))
    begun = time.monotonic()
    run.trainer.run(run.data, max_epochs=1)
    assert time.monotonic() - begun > 0.5
    assert "is held by process 7 of another-host" in caplog.text
    assert [path.name for path in kept.iterdir()] == ["epoch=0001-iteration=00000005"]


def test_one_that_has_been_silent_for_long_is_not_waited_for(kept, make_run) -> None:
    (kept / LOCK).write_bytes(mark(at=time.time() - 2 * lock.LONG_AGO))
    if isinstance(kept, Path):
        os.utime(kept / LOCK, (time.time() - 2 * lock.LONG_AGO,) * 2)
    run = make_run(Checkpoint(kept))
    begun = time.monotonic()
    run.trainer.run(run.data, max_epochs=1)
    assert time.monotonic() - begun < 10


def test_signs_of_life_are_given(kept, hasty, make_run) -> None:
    run = make_run(Checkpoint(kept))
    signs = []

    @run.trainer.on(Events.ITERATION_STARTED)
    def look():
        time.sleep(0.12)
        file = kept / LOCK
        signs.append((file.read_bytes(), file.stat().st_mtime_ns if isinstance(kept, Path) else 0))

    run.trainer.run(run.data, max_epochs=1)
    assert len(set(signs)) >= 4


def test_a_run_whose_directory_was_taken_over_ends_and_mixes_nothing(kept, make_run) -> None:
    """It was silent for too long, as a machine that was suspended."""
    checkpoint = Checkpoint(kept)
    run = make_run(checkpoint)

    @run.trainer.on(Events.EPOCH_STARTED(once=2))
    def take_over():
        checkpoint.wait()
        (kept / LOCK).write_bytes(mark())

    with pytest.raises(DirectoryInUseError, match="was taken over by process 7 of another-host"):
        run.trainer.run(run.data, max_epochs=4)
    assert run.trainer.state.epoch <= 3
    assert sorted(path.name for path in kept.iterdir()) == [LOCK, "epoch=0001-iteration=00000005"]
    assert verify(kept / "epoch=0001-iteration=00000005").epoch == 1
    assert json.loads((kept / LOCK).read_bytes())["token"] == "t"


def test_a_mark_that_was_half_written_by_a_killed_run(make_run, tmp_path) -> None:
    (tmp_path / LOCK).write_bytes(b"")
    run = make_run(Checkpoint(tmp_path))
    run.trainer.run(run.data, max_epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=0001-iteration=00000005"]


def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(make_run, tmp_path) -> None:
    """This process's own number, and its parent's, with another beginning."""
    from dataclasses import asdict

    from leyden.handlers.checkpoint.store.processes import ProcessIdentity

    for pid in (os.getpid(), os.getppid()):
        values = asdict(ProcessIdentity.own()) | {"pid": pid, "started": "1"}
        (tmp_path / LOCK).write_bytes(mark(**values))
        run = make_run(Checkpoint(tmp_path, resume="auto"))
        run.trainer.run(run.data, max_epochs=1)
        assert not (tmp_path / LOCK).exists()


@pytest.mark.slow
def test_many_that_start_at_once_have_one_winner(tmp_path) -> None:
    """Also over a mark that a dead run left."""
    from dataclasses import asdict

    from leyden.handlers.checkpoint.store.processes import ProcessIdentity

    values = asdict(ProcessIdentity.own()) | {"pid": 4194303, "started": "1"}
    (tmp_path / LOCK).write_bytes(mark(**values))
    code = (
        "import sys, time, pathlib, leyden.handlers.checkpoint.store.lock as lock\n"
        "here = lock.DirectoryLock(pathlib.Path(sys.argv[1]))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n"
        "    here.take(); print('mine', flush=True); sys.stdin.readline()\n"
        "except lock.DirectoryInUseError: print('no', flush=True)\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        found = [racer.stdout.readline().strip() for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert sorted(found) == ["mine", "no", "no", "no"]
