"""Which checkpoints stay, and the saves that are not of an epoch: by the clock, on request, after an exception."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint, read, verify

SCRIPT = Path(__file__).parent / "scripts" / "requested_run.py"


def iterations(directory):
    return sorted(verify(path).iteration for path in directory.glob("epoch=*"))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"keep": 2, "keep_best": 2}, [2, 4, 5, 6]),
        ({"keep": 1, "keep_best": 1}, [2, 6]),
        ({"keep": 3, "keep_best": 1}, [2, 4, 5, 6]),
        ({"keep": 1, "keep_best": 3}, [2, 3, 4, 6]),
        ({"keep": 2, "keep_best": 2, "mode": "min"}, [1, 5, 6]),
        ({"keep": 2}, [2, 4, 6]),
    ],
)
def test_the_best_and_the_last_at_once(options, kept, make_run, metric_of, epochs_in, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, best="score", **options))
    metric_of(run.trainer, [0.1, 0.9, 0.5, 0.8, 0.2, 0.3])
    run.trainer.run(run.data, max_epochs=6)
    assert epochs_in(tmp_path) == kept


def test_an_old_one_goes_only_after_the_new_one_is_whole(make_run, monkeypatch, tmp_path) -> None:
    """At the moment in which a folder goes, all that are to stay are there, and whole."""
    seen = []
    rename = Path.rename

    def watched(path, target):
        if path.name.startswith("epoch="):
            seen.append((verify(path).iteration, iterations(path.parent)))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    run = make_run(Checkpoint(tmp_path, keep=1))
    run.trainer.run(run.data, max_epochs=3)
    assert seen == [(5, [5, 10]), (10, [10, 15])]


def test_one_that_can_not_be_deleted_is_told_and_the_new_one_counts(make_run, monkeypatch, tmp_path) -> None:
    rename = Path.rename

    def stuck(path, target):
        if path.name.startswith("epoch=0001"):
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stuck)
    run = make_run(Checkpoint(tmp_path, keep=1))
    with pytest.warns(UserWarning, match=r"epoch=0001-iteration=00000005 can't be deleted: PermissionError"):
        run.trainer.run(run.data, max_epochs=2)
    assert iterations(tmp_path) == [5, 10]


def slow_down(run, seconds=0.02):
    run.trainer.add_event_handler(Events.ITERATION_STARTED, lambda: time.sleep(seconds))


def test_by_the_clock(make_run, tmp_path) -> None:
    """Alone it takes the place of each epoch's end; the end of the run is saved in any case."""
    run, asked_at = make_run(Checkpoint(tmp_path, every_minutes=0.2 / 60, keep=None)), []
    run.trainer.add_event_handler(Events.SAVE_REQUESTED, lambda: asked_at.append(time.monotonic()))
    slow_down(run)
    run.trainer.run(run.data, max_epochs=12)
    found = iterations(tmp_path)
    assert found[-1] == 60
    assert len(asked_at) >= 2
    assert 0 <= len(found) - len(asked_at) <= 1
    assert all(later - sooner >= 0.179 for sooner, later in itertools.pairwise(asked_at))  # a tenth sooner at most


def test_by_the_clock_besides_epochs(make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, every=3, every_minutes=0.2 / 60, keep=None))
    slow_down(run, 0.04)
    run.trainer.run(run.data, max_epochs=6)
    found = iterations(tmp_path)
    assert {15, 30} < set(found)


def test_a_clock_costs_no_call_in_most_iterations(make_run, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, every_minutes=10)
    run = make_run(checkpoint)
    looks = []
    look = checkpoint._clock._look
    assert run.trainer.has_event_handler(look, Events.ITERATION_COMPLETED)
    steps = checkpoint._clock.steps
    checkpoint._clock.steps = lambda iteration: looks.append(iteration) or steps(iteration)
    run.trainer.run(run.data, max_epochs=1, epoch_length=1000)
    assert len(looks) <= 11


@pytest.mark.parametrize("way", ["handler", "thread", "signal"])
def test_on_request_the_running_iteration_is_saved(way, make_run, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, every=100, keep=None)
    run = make_run(checkpoint)
    before = signal.signal(signal.SIGUSR2, lambda *_: checkpoint.request())

    @run.trainer.on(Events.ITERATION_STARTED(once=3))
    def ask():
        if way == "handler":
            checkpoint.request()
        elif way == "thread":
            thread = threading.Thread(target=checkpoint.request)
            thread.start()
            thread.join()
        else:
            os.kill(os.getpid(), signal.SIGUSR2)

    try:
        run.trainer.run(run.data, max_epochs=2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert iterations(tmp_path) == [3, 10]


def test_a_request_of_a_checkpoint_without_engine(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="attached to no engine"):
        Checkpoint(tmp_path).request()


class Breaking(list):
    """Batches of which one can't be had."""

    def __init__(self, items, at):
        super().__init__(items)
        self.at = at

    def __iter__(self):
        for number, item in enumerate(super().__iter__()):
            if number == self.at:
                raise OSError("the data is gone")
            yield item


@pytest.mark.parametrize("wanted", [True, False])
def test_after_an_exception_between_two_iterations(wanted, make_run, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, on_exception=wanted, keep=None))
    with pytest.raises(OSError, match="the data is gone"):
        run.trainer.run(Breaking(run.data, 3), max_epochs=2)
    assert iterations(tmp_path) == ([3] if wanted else [])
    if wanted:
        again = make_run(Checkpoint(tmp_path, resume="auto"))
        again.trainer.run(again.data, max_epochs=1)
        whole = make_run()
        whole.trainer.run(whole.data, max_epochs=1)
        assert again.losses == whole.losses[3:]


@pytest.mark.parametrize(
    "event",
    [
        Events.ITERATION_STARTED(once=7),
        Events.ITERATION_COMPLETED(once=7),
        Events.EPOCH_STARTED(once=2),
        Events.EPOCH_COMPLETED(once=2),
    ],
)
def test_after_an_exception_amid_an_iteration_or_the_handlers_of_an_event_the_last_one_stays(
    event, make_run, tmp_path
) -> None:
    run = make_run(Checkpoint(tmp_path, on_exception=True, keep=None))

    @run.trainer.on(event)
    def fail():
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        run.trainer.run(run.data, max_epochs=3)
    assert iterations(tmp_path) == [5]


def test_an_exception_goes_its_way_when_saving_fails_too(make_run, tmp_path) -> None:
    class NoState:
        def state_dict(self):
            return {"no": print if run.trainer.state.iteration else None}  # at the start it is told at once

        def load_state_dict(self, state_dict):
            raise NotImplementedError

    run = make_run(Checkpoint(tmp_path, on_exception=True, extra={"it": NoState()}))
    with pytest.raises(OSError, match="the data is gone") as error:
        run.trainer.run(Breaking(run.data, 3), max_epochs=2)
    assert "then saving it failed: TypeError: extra/it/no" in error.value.__notes__[0]


@pytest.mark.slow
def test_two_ranks_save_at_one_iteration_what_one_of_them_asked_for(tmp_path) -> None:
    """Also by the clock, which is rank 0's."""
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    asked = read(tmp_path / "asked")
    assert len(list((tmp_path / "asked").iterdir())) == 2  # the one asked for, and the end
    assert asked.manifest.world_size == 2
    assert asked.rank_outline(1)["rng"]
    assert 3 <= len(list((tmp_path / "clock").iterdir())) <= 8
