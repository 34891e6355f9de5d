"""Training goes on while a checkpoint is written, and what is written is the moment of the save to the bit."""

import json
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from leyden.engine import Events
from leyden.handlers import EMA
from leyden.handlers.checkpoint import Checkpoint, read, verify
from leyden.metrics import RunningAverage


class Disk:
    """A disk whose flushes can be held up, and fail."""

    def __init__(self, monkeypatch):
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.error = None
        self.busy = self.most_busy = 0
        self._flush = os.fsync
        monkeypatch.setattr(os, "fsync", self.flush)

    def flush(self, descriptor):
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        self.reached.set()
        try:
            assert self.open.wait(30)
            if self.error is not None:
                raise OSError(*self.error)
            self._flush(descriptor)
        finally:
            self.busy -= 1


@pytest.fixture
def disk(monkeypatch):
    slow = Disk(monkeypatch)
    yield slow
    slow.open.set()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def wide():
    return nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.Linear(64, 2))


class Counting:
    """An extra whose state is the very objects that it changes."""

    def __init__(self):
        self.state = {"list": [0], "tensor": torch.zeros(3), "nested": {"count": 0}}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state_dict):
        self.state = state_dict

    def step(self):
        self.state["list"][0] += 1
        self.state["list"].append(0)
        self.state["tensor"] += 1
        self.state["nested"]["count"] += 1


def test_what_training_changes_meanwhile_is_saved_as_it_was(make_run, disk, tmp_path) -> None:
    """The files of a save beside which training went on are those of one for which it stood still."""

    def play(directory, **options):
        counting = Counting()
        checkpoint = Checkpoint(
            directory,
            event=Events.ITERATION_COMPLETED(once=3),
            keep=None,
            extra={"counting": counting},
            **options,
        )
        run = make_run(EMA(0.9), checkpoint, model=wide)
        RunningAverage(output_transform=lambda output: output).attach(run.trainer, "loss")
        run.trainer.add_event_handler(Events.ITERATION_COMPLETED, counting.step)
        return run, checkpoint

    still, _ = play(tmp_path / "still", asynchronous=False)
    still.trainer.run(still.data, max_epochs=2)
    beside, _ = play(tmp_path / "beside")
    beside.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), disk.open.clear)
    trained_on = []

    @beside.trainer.on(Events.ITERATION_COMPLETED(once=9))
    def let_it_write():
        assert disk.reached.wait(30)
        trained_on.append(not any(name.startswith("epoch") for name in names(tmp_path / "beside")))
        disk.open.set()

    beside.trainer.run(beside.data, max_epochs=2)
    assert trained_on == [True]
    for name in ("epoch=0001-iteration=00000003", "epoch=0002-iteration=00000010"):
        still_written, beside_written = (written(tmp_path / way / name) for way in ("still", "beside"))
        assert still_written == beside_written


def written(folder):
    """The bytes of each file of a whole checkpoint, but for the word that tells it from any other, and the time."""
    token = json.loads((folder / "index.json").read_bytes())["token"].encode()
    verify(folder)
    return {
        path.name: path.read_bytes().replace(token, b"")[: -32 if path.name.endswith(".state") else None]
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }


def test_memory_is_used_again_and_each_save_has_its_own_values(make_run, tmp_path) -> None:
    for way in (True, False):
        checkpoint = Checkpoint(
            tmp_path / str(way), event=Events.ITERATION_COMPLETED(every=1), keep=None, asynchronous=way
        )
        run = make_run(checkpoint, model=wide)
        run.trainer.run(run.data, max_epochs=1)
    for path in (tmp_path / "True").iterdir():
        assert written(path) == written(tmp_path / "False" / path.name)


def test_the_files_are_those_of_safetensors_and_of_torch(make_run, tmp_path) -> None:
    from safetensors import safe_open
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    run = make_run(Checkpoint(tmp_path, every=1))
    run.trainer.run(run.data, max_epochs=1)
    contents = read(tmp_path)
    (file,) = contents.path.glob("*.safetensors")
    with safe_open(str(file), framework="pt") as opened:
        assert set(opened.keys()) == set(contents.tensors)
        for name, value in run.model.state_dict().items():
            assert torch.equal(opened.get_tensor(f"models/default/model/{name}"), value)
    described = HuggingFaceStorageReader(str(contents.path)).read_metadata().state_dict_metadata
    assert {name: tuple(each.size) for name, each in described.items()} == {
        name: info.shape for name, info in contents.tensors.items()
    }


def test_two_writes_never_go_on_at_once(make_run, disk, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED(every=1), keep=2))
    run.trainer.run(run.data, max_epochs=3)
    assert disk.most_busy == 1
    assert [verify(path).iteration for path in sorted(tmp_path.iterdir())] == [14, 15]


@pytest.mark.parametrize("end", ["limit", "terminate", "interrupt", "error", "KeyboardInterrupt"])
def test_a_run_does_not_end_before_its_last_write(end, make_run, disk, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED(once=4)))
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=4), disk.open.clear)
    threading.Timer(0.6, disk.open.set).start()

    @run.trainer.on(Events.ITERATION_STARTED(once=5))
    def stop():
        if end in ("terminate", "interrupt"):
            getattr(run.trainer, end)()
        elif end == "error":
            raise RuntimeError("lost")
        elif end == "KeyboardInterrupt":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    begun = time.monotonic()
    expected = {"error": RuntimeError, "KeyboardInterrupt": KeyboardInterrupt}.get(end)
    if expected is None:
        run.trainer.run(run.data, max_epochs=1)
    else:
        with pytest.raises(expected):
            run.trainer.run(run.data, max_epochs=1)
    assert time.monotonic() - begun > 0.3
    # Stopped before a step, the run is saved once more: then the batch that waits for it is in the state.
    again = "-save=2" if end in ("terminate", "interrupt") else ""
    assert f"epoch=0001-iteration=00000004{again}" in names(tmp_path)
    assert not any(name.startswith(".") for name in names(tmp_path))
    assert not [each for each in threading.enumerate() if each.name.startswith("leyden")]


@pytest.mark.parametrize("interrupts", [1, 2])
def test_control_c_while_the_last_write_is_waited_for_does_not_lose_it(interrupts, make_run, disk, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path))
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED, disk.open.clear)

    @run.trainer.on(Events.EPOCH_COMPLETED, order=100)  # the write is begun, and COMPLETED waits for it
    def interrupt():
        for number in range(interrupts):
            threading.Timer(0.2 * (1 + number), os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Timer(0.8, disk.open.set).start()

    with pytest.raises(KeyboardInterrupt):
        run.trainer.run(run.data, max_epochs=1)
    assert names(tmp_path) == ["epoch=0001-iteration=00000005"]
    verify(tmp_path)


def test_wait(make_run, disk, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, every=100)
    run = make_run(checkpoint)
    seen = []

    @run.trainer.on(Events.ITERATION_COMPLETED(once=2))
    def save():
        disk.open.clear()
        path = checkpoint.save(run.trainer)
        seen.append(path.exists())
        disk.open.set()
        checkpoint.wait()
        seen.append(verify(path).iteration)

    run.trainer.run(run.data, max_epochs=1)
    assert seen == [False, 2]
    checkpoint.wait()  # nothing is under way


def test_the_last_path_is_that_of_the_last_save_once_it_is_whole(make_run, disk, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, event=Events.ITERATION_COMPLETED(every=2))
    run = make_run(checkpoint)
    seen = []

    @run.trainer.on(Events.ITERATION_COMPLETED(every=2), order=100)
    def look():
        disk.open.clear()
        threading.Timer(0.1, disk.open.set).start()
        seen.append(verify(checkpoint.last_path).iteration)

    run.trainer.run(run.data, max_epochs=1)
    assert seen == [2, 4]


def test_by_hand_outside_of_a_run_it_is_whole_at_once(make_run, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, every=100)
    run = make_run(checkpoint)
    run.trainer.run(run.data, max_epochs=1)
    with torch.no_grad():
        run.model[0].weight.zero_()
    path = checkpoint.save(run.trainer)
    assert names(tmp_path) == ["epoch=0001-iteration=00000005-save=2"]
    assert verify(path).iteration == 5
    assert not read(path).load()["models"]["default"]["model"]["0.weight"].any()


FULL = (28, "No space left on device")


def failing_run(make_run, disk, tmp_path, until=None, **options):
    """A run whose disk takes nothing after iteration 5 and, with `until`, takes all after that one."""
    checkpoint = Checkpoint(tmp_path, **options)
    run = make_run(checkpoint)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), checkpoint.wait)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), setattr, disk, "error", FULL)
    if until is not None:
        run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=until), lambda: checkpoint.last_path)  # waits
        run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=until), setattr, disk, "error", None)
    return run


def test_a_save_that_failed_is_told_with_its_cause_and_training_goes_on(make_run, disk, tmp_path) -> None:
    run = failing_run(make_run, disk, tmp_path, until=11)
    told = r"checkpoint .*epoch=0002-iteration=00000010 could not be written: OSError: \[Errno 28\] No space left"
    with pytest.warns(UserWarning, match=told):
        run.trainer.run(run.data, max_epochs=3)
    assert names(tmp_path) == ["epoch=0001-iteration=00000005", "epoch=0003-iteration=00000015"]


def test_a_run_that_completes_without_its_last_checkpoint_says_so(make_run, disk, tmp_path) -> None:
    run = failing_run(make_run, disk, tmp_path)
    with pytest.warns(UserWarning, match="could not be written"), pytest.raises(OSError, match="No space") as error:
        run.trainer.run(run.data, max_epochs=3)
    assert run.trainer.state.iteration == 15
    assert "the older ones are as they were" in error.value.__notes__[0]
    assert "the end of the run is not in" in error.value.__notes__[1]
    assert names(tmp_path) == ["epoch=0001-iteration=00000005"]


def test_an_interrupted_run_has_an_older_checkpoint_to_go_on_from(make_run, disk, tmp_path) -> None:
    run = failing_run(make_run, disk, tmp_path)
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=8), run.trainer.interrupt)
    with pytest.warns(UserWarning, match="could not be written"):
        run.trainer.run(run.data, max_epochs=3)
    assert names(tmp_path) == ["epoch=0001-iteration=00000005"]


def test_an_interrupted_run_without_any_checkpoint_says_so(make_run, disk, tmp_path) -> None:
    run = make_run(Checkpoint(tmp_path))
    disk.error = FULL
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), run.trainer.interrupt)
    with pytest.warns(UserWarning, match="could not be written"), pytest.raises(OSError, match="No space"):
        run.trainer.run(run.data, max_epochs=3)


@pytest.mark.parametrize(
    ("event", "ends_at"),
    [
        (Events.ITERATION_COMPLETED(every=1), 7),  # the next save
        (Events.ITERATION_COMPLETED(once=7), 10),  # the end of the epoch
        (Events.ITERATION_COMPLETED(once=12), 15),  # the end of the run
    ],
)
def test_on_error_raise_raises_at_the_next_safe_point(event, ends_at, make_run, disk, tmp_path) -> None:
    run = failing_run(make_run, disk, tmp_path, event=event, on_error="raise")
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=9), lambda: time.sleep(0.2))
    with pytest.raises(OSError, match="No space left") as error:
        run.trainer.run(run.data, max_epochs=3)
    assert run.trainer.state.iteration == ends_at
    assert f"{tmp_path}" in error.value.__notes__[0]
    assert not any(name.startswith(".") for name in names(tmp_path))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_who_saves_by_hand_gets_the_error(asynchronous, make_run, disk, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, every=100, asynchronous=asynchronous)
    run = make_run(checkpoint)
    caught = []

    @run.trainer.on(Events.ITERATION_COMPLETED(once=2))
    def save():
        disk.error = FULL
        try:
            checkpoint.save(run.trainer)
            checkpoint.wait()
        except OSError as error:
            caught.append(error.errno)
        disk.error = None

    run.trainer.run(run.data, max_epochs=1)
    assert caught == [FULL[0]]
    assert names(tmp_path) == ["epoch=0001-iteration=00000005"]


def test_a_metric_whose_checkpoint_failed_competes_when_the_save_is_tried_again(
    make_run, metric_of, disk, tmp_path
) -> None:
    run = make_run(Checkpoint(tmp_path, best="score", keep=1))
    metric_of(run.trainer, [0.9])
    disk.error = FULL
    run.trainer.add_event_handler(Events.COMPLETED, setattr, disk, "error", None)

    @run.trainer.on(Events.EPOCH_COMPLETED, order=100)
    def let_it_fail():
        while not disk.reached.is_set():
            time.sleep(0.01)
        time.sleep(0.05)

    with pytest.warns(UserWarning, match="could not be written"):
        run.trainer.run(run.data, max_epochs=1)
    assert read(tmp_path).manifest.scored == ["score"]


def test_an_error_of_the_run_goes_first(make_run, disk, tmp_path) -> None:
    run = failing_run(make_run, disk, tmp_path, event=Events.ITERATION_COMPLETED(once=7), on_error="raise")

    @run.trainer.on(Events.ITERATION_STARTED(once=8))
    def fail():
        raise RuntimeError("lost")

    with pytest.warns(UserWarning, match="could not be written"), pytest.raises(RuntimeError, match="lost"):
        run.trainer.run(run.data, max_epochs=3)
    assert names(tmp_path) == []


def test_the_manifest_has_sizes_and_hashes_though_no_file_was_read_again(make_run, monkeypatch, tmp_path) -> None:
    from leyden.handlers.checkpoint.files.manifest import FileRecord

    with monkeypatch.context() as patch:
        patch.setattr(FileRecord, "of", None)
        run = make_run(Checkpoint(tmp_path))
        run.trainer.run(run.data, max_epochs=1)
    manifest = verify(tmp_path)
    sizes = {name: (read(tmp_path).path / name).stat().st_size for name in ("state.json", "index.json")}
    assert {name: record.bytes for name, record in manifest.files.items()} == sizes
    assert json.loads((read(tmp_path).path / "state.json").read_bytes())["engine"]["iteration"] == 5
