"""A checkpoint that is not as it was written is found out, told, and passed over."""

import random
import shutil

import pytest

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint, CheckpointDamagedError, read, verify
from leyden.handlers.checkpoint.files.manifest import Manifest

NEWEST = "epoch=0002-iteration=00000010"
OLDER = "epoch=0001-iteration=00000005"
RANK = "rank-00000.state"
TENSORS = "shard-00001-model-00001-of-00001.safetensors"


@pytest.fixture
def kept(make_run, tmp_path):
    """A directory with the checkpoints of two epochs."""
    run = make_run(Checkpoint(tmp_path / "kept"))
    run.trainer.run(run.data, max_epochs=2)
    return tmp_path / "kept"


def cut(name):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def flip(name):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 4
        (folder / name).write_bytes(data)

    return damage


def half_renamed(folder):
    for path in folder.iterdir():
        path.unlink()


DAMAGES = {
    "tensors cut": (cut(TENSORS), f"{TENSORS} has .* bytes instead of"),
    "tensors flipped": (flip(TENSORS), f"{TENSORS} was altered"),
    "tensors gone": (lambda folder: (folder / TENSORS).unlink(), f"lacks its file {TENSORS}"),
    "state cut": (cut("state.json"), "state.json has .* bytes instead of"),
    "state flipped": (flip("state.json"), "state.json was altered"),
    "index cut": (cut("index.json"), "index.json has .* bytes instead of"),
    "index flipped": (flip("index.json"), "index.json was altered"),
    "index gone": (lambda folder: (folder / "index.json").unlink(), "lacks its file index.json"),
    "a rank's own cut": (cut(RANK), f"{RANK} was altered, or cut short"),
    "a rank's own flipped": (flip(RANK), f"{RANK} was altered, or cut short"),
    "a rank's own gone": (lambda folder: (folder / RANK).unlink(), f"lacks its file {RANK}"),
    "a rank's own of another checkpoint": (
        lambda folder: shutil.copy(folder.parent / OLDER / RANK, folder / RANK),
        f"{RANK} is of another rank or another checkpoint",
    ),
    "manifest cut": (cut("manifest.json"), "no usable manifest.json: it is no manifest"),
    "manifest flipped": (flip("manifest.json"), "no usable manifest.json: it (was altered|is no manifest)"),
    "manifest gone": (lambda folder: (folder / "manifest.json").unlink(), "no usable manifest.json: there is none"),
    "nothing in it": (half_renamed, "no usable manifest.json: there is none"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_one_before_is_used_and_the_damage_told(kind, make_run, kept) -> None:
    damage, told = DAMAGES[kind]
    damage(kept / NEWEST)
    run = make_run(Checkpoint(kept, resume="auto"))
    started = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: started.append(run.trainer.state.epoch))
    with pytest.warns(UserWarning, match=f"a damaged checkpoint is passed over: .*{NEWEST}.*{told}|{told}"):
        run.trainer.run(run.data, max_epochs=3)
    assert started == [2, 3]


def test_files_that_nobody_reads_are_told_by_verify(kept) -> None:
    shutil.copy(kept / NEWEST / TENSORS, kept / NEWEST / "shard-00002.safetensors")
    with pytest.raises(CheckpointDamagedError, match=r"has shard-00002.safetensors, which index.json does not list"):
        verify(kept / NEWEST)
    (kept / NEWEST / "shard-00002.safetensors").unlink()
    shutil.copy(kept / NEWEST / RANK, kept / NEWEST / "rank-00001.state")
    with pytest.raises(CheckpointDamagedError, match=r"has rank-00001.state, and no such ranks wrote it"):
        verify(kept / NEWEST)


def test_where_none_is_whole_the_run_does_not_begin_anew(make_run, kept) -> None:
    for folder in kept.iterdir():
        flip(TENSORS)(folder)
    run = make_run(Checkpoint(kept, resume="auto"))
    with pytest.raises(CheckpointDamagedError, match=r"no checkpoint in .* is whole: .*0002.*0001.*Move them away"):
        run.trainer.run(run.data, max_epochs=3)


def test_any_flipped_bit_and_any_cut_is_found(kept) -> None:
    dice = random.Random(0)
    folder = kept / NEWEST
    for path in sorted(folder.iterdir()) * 30:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        for damaged in (flipped, whole[: dice.randrange(len(whole))]):
            path.write_bytes(damaged)
            with pytest.raises(CheckpointDamagedError):
                verify(folder)
        path.write_bytes(whole)
    verify(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"serial": "1"}, "a count is not a whole number"),
        ({"metrics": {"a": "b"}}, "a metric is not a number"),
    ],
)
def test_a_manifest_of_another_kind(change, said, kept) -> None:
    folder = kept / NEWEST
    values = {**vars(Manifest.read(folder)), **change}
    (folder / "manifest.json").write_bytes(Manifest(**values).to_bytes())
    with pytest.raises(CheckpointDamagedError, match=said):
        read(folder)
