"""Checkpoints that earlier versions wrote are read for ever; those of a later version are told apart from damage."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from leyden.engine import Events
from leyden.handlers.checkpoint import Checkpoint, load_weights, read, verify
from leyden.handlers.checkpoint.files.manifest import SCHEMA, Manifest

DATA = Path(__file__).parents[2] / "data"
FOLDERS = sorted(DATA.glob("checkpoint-schema-*/"))


def load_script():
    spec = importlib.util.spec_from_file_location("make_checkpoint", DATA / "make_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = load_script()


def expected(folder):
    return json.loads(folder.with_suffix(".json").read_text())


def number_of(folder):
    return int(folder.name.rpartition("-")[2])


def test_there_is_one_of_each_schema() -> None:
    """A new layout needs a new number, and a checkpoint written by tests/data/make_checkpoint.py."""
    assert [number_of(folder) for folder in FOLDERS] == list(range(1, SCHEMA + 1))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
class TestEachSchema:
    def test_it_is_read_and_verified(self, folder) -> None:
        manifest = verify(folder)
        assert (manifest.schema, manifest.epoch, manifest.iteration) == (number_of(folder), 2, made.SAVED_AT)
        assert manifest.epoch_open
        contents = read(folder)
        assert contents.tensors["models/default/model/0.weight"].shape == (6, 4)
        assert contents.outline["engine"]["iteration"] == made.SAVED_AT

    def test_its_weights_are_loaded(self, folder) -> None:
        model = made.network()
        load_weights(folder, model)
        for name, value in model.state_dict().items():
            assert torch.equal(value, torch.tensor(expected(folder)["weights"][name], dtype=value.dtype))
        load_weights(folder, model, averaged="EMA")

    def test_a_run_goes_on_from_it(self, folder, tmp_path) -> None:
        """Not to the bit, for which the machine and torch would have to be the same."""
        going_on = Checkpoint(tmp_path, resume=folder, event=Events.EPOCH_COMPLETED)
        _, losses, trainer = made.train(going_on, made.LAST)
        told = expected(folder)
        assert losses == pytest.approx(told["losses"], rel=1e-4)
        assert trainer.updates["default"].optimizer.param_groups[0]["lr"] == pytest.approx(told["lr"])
        assert trainer.state.step == told["step"]
        assert {verify(path).schema for path in tmp_path.iterdir()} == {SCHEMA}


def test_a_later_schema_is_told_as_such_and_no_older_checkpoint_taken(tmp_path) -> None:
    """Going on from an older one would quietly throw away what a newer leyden has done."""
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("epoch=0001-iteration=00000005", "epoch=0002-iteration=00000011"):
        shutil.copytree(FOLDERS[0], kept / name)
    later = kept / name
    manifest = Manifest.read(later)
    values = {**vars(manifest), "schema": SCHEMA + 1, "serial": manifest.serial + 1, "leyden": "99.0"}
    (later / "manifest.json").write_bytes(Manifest(**values).to_bytes())
    said = rf"{re.escape(str(later))} .*schema {SCHEMA + 1}.*leyden 99.0.*reads up to {SCHEMA}.*newer leyden"
    for act in (read, verify, lambda path: load_weights(path, made.network())):
        with pytest.raises(ValueError, match=said):
            act(later)
    with pytest.raises(ValueError, match=said):
        made.train(Checkpoint(kept, resume="auto"), made.LAST)


def test_the_build_of_torch_is_told_also_where_its_package_leaves_it_out(monkeypatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    manifest = Manifest(serial=1, epoch=1, iteration=1, step=1, epoch_open=False, world_size=1, metrics={}, scored=[])
    assert manifest.torch == "2.14.1+cu130"
