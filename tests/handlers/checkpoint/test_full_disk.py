"""A disk that fills, a directory that vanishes or takes no more: training goes on, and what is there stays whole."""

import errno
import os
import shutil
import subprocess
import warnings

import pytest
import torch
from torch import nn

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint, verify


def wide():
    """Some 200 kB with AdamW's state."""
    return nn.Sequential(nn.Linear(4, 128), nn.Linear(128, 128), nn.Linear(128, 2))


def whole(directory):
    """The iterations of the checkpoints there; each is verified, and nothing else may lie there."""
    return sorted(verify(path).iteration for path in directory.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_disk_that_is_full_for_a_while(asynchronous, make_run, small_disk) -> None:
    kept = small_disk / "kept"
    checkpoint = Checkpoint(kept, keep=2, asynchronous=asynchronous)
    run = make_run(checkpoint, model=wide)
    at = run.trainer.add_event_handler

    @run.trainer.on(Events.EPOCH_STARTED(once=3))
    def fill():
        checkpoint.wait()
        subprocess.run(["dd", "if=/dev/zero", f"of={small_disk / 'other'}"], capture_output=True, check=False)
        assert shutil.disk_usage(small_disk).free == 0

    at(Events.EPOCH_STARTED(once=5), lambda: checkpoint.last_path)
    at(Events.EPOCH_STARTED(once=5), (small_disk / "other").unlink)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.trainer.run(run.data, max_epochs=5)
    assert run.trainer.state.iteration == 25
    assert whole(kept) == [10, 25]
    told = [str(each.message) for each in told if "could not be written" in str(each.message)]
    assert len(told) == 2
    assert f"{kept}/epoch=0003-iteration=00000015 could not be written: OSError: [Errno {errno.ENOSPC}]" in told[0]


def test_a_disk_that_stays_full(make_run, small_disk) -> None:
    """The run trains to its end, says there that its end is not saved, and can be gone on with."""
    kept = small_disk / "kept"
    run = make_run(Checkpoint(kept, keep=None), model=wide)
    with pytest.warns(UserWarning, match="No space left"), pytest.raises(OSError, match="No space left") as error:
        run.trainer.run(run.data, max_epochs=12)
    assert run.trainer.state.iteration == 60
    assert f"the end of the run is not in {kept}" in error.value.__notes__[-1]
    found = whole(kept)
    assert 2 <= len(found) <= 6
    assert found == [5 * epoch for epoch in range(1, len(found) + 1)]
    again = make_run(Checkpoint(kept, keep=1, resume="auto"), model=wide)
    shutil.rmtree(kept / f"epoch=0001-iteration={5:08}")
    again.trainer.run(again.data, max_epochs=len(found) + 1)
    assert again.losses == run.losses[found[-1] : found[-1] + 5]
    assert whole(kept) == [found[-1] + 5]


def test_a_directory_that_vanishes_is_made_again(make_run, tmp_path) -> None:
    kept = tmp_path / "kept"
    checkpoint = Checkpoint(kept)
    run = make_run(checkpoint)
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=3), checkpoint.wait)
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=3), lambda: shutil.rmtree(kept))
    run.trainer.run(run.data, max_epochs=4)
    assert whole(kept) == [15, 20]


def test_a_directory_that_vanishes_amid_a_write(make_run, tmp_path, monkeypatch) -> None:
    kept = tmp_path / "kept"
    run = make_run(Checkpoint(kept))
    flush, gone = os.fsync, []

    def vanish(descriptor):
        flush(descriptor)
        if list(kept.glob(".tmp-epoch=0003*")) and not gone:
            gone.append(True)
            shutil.rmtree(kept)

    monkeypatch.setattr(os, "fsync", vanish)
    with pytest.warns(UserWarning, match=r"epoch=0003-iteration=00000015 could not be written: FileNotFoundError"):
        run.trainer.run(run.data, max_epochs=4)
    assert whole(kept) == [20]


class Locked:
    """Lets nothing be made in a directory, also by root, whom permissions don't keep out."""

    def __init__(self, monkeypatch, directory):
        self.on = False
        make = os.mkdir

        def mkdir(path, *args, **kwargs):
            if self.on and str(path).startswith(str(directory)):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return make(path, *args, **kwargs)

        monkeypatch.setattr(os, "mkdir", mkdir)


def test_a_directory_that_becomes_read_only(make_run, tmp_path, monkeypatch) -> None:
    kept = tmp_path / "kept"
    checkpoint = Checkpoint(kept, keep=1)
    run = make_run(checkpoint)
    disk = Locked(monkeypatch, kept)
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), checkpoint.wait)
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), setattr, disk, "on", True)
    told = r"epoch=0002-iteration=00000010 could not be written: OSError: \[Errno 30\] Read-only file system"
    with pytest.warns(UserWarning, match=told), pytest.raises(OSError, match="Read-only"):
        run.trainer.run(run.data, max_epochs=3)
    assert run.trainer.state.epoch == 3
    assert whole(kept) == [5]


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.symlink_to("nowhere")])
def test_a_place_that_can_not_be_a_directory_is_told_before_training(make, make_run, tmp_path) -> None:
    make(tmp_path / "file")
    run = make_run(Checkpoint(tmp_path / "file" / "kept"))
    with pytest.raises(OSError, match="file"):
        run.trainer.run(run.data, max_epochs=1)
    assert run.losses == []


def test_on_error_raise_ends_the_run(make_run, small_disk) -> None:
    run = make_run(Checkpoint(small_disk / "kept", keep=None, on_error="raise"), model=wide)
    with pytest.raises(OSError, match="No space left"):
        run.trainer.run(run.data, max_epochs=12)
    assert run.trainer.state.epoch < 12
    assert len(whole(small_disk / "kept")) >= run.trainer.state.epoch - 2


def test_the_weights_are_those_of_a_run_that_saved_nothing(make_run, small_disk) -> None:
    plain = make_run(model=wide)
    plain.trainer.run(plain.data, max_epochs=12)
    run = make_run(Checkpoint(small_disk / "kept", keep=None), model=wide)
    with pytest.warns(UserWarning, match="No space left"), pytest.raises(OSError, match="No space left"):
        run.trainer.run(run.data, max_epochs=12)
    assert run.losses == plain.losses
    assert torch.equal(run.model[1].weight, plain.model[1].weight)
