"""What one can learn and load from a checkpoint without an engine."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update
from leyden.handlers.checkpoint import Checkpoint, CheckpointDamagedError, load_weights, read, verify


@pytest.fixture
def saved(make_run, tmp_path):
    """A finished run whose checkpoints are in tmp_path."""
    run = make_run(Checkpoint(tmp_path))
    run.trainer.run(run.data, max_epochs=2)
    return run


def bare():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))


def test_read_lists_tensors_without_loading_them(saved, tmp_path) -> None:
    contents = read(tmp_path)
    assert contents.path == tmp_path / "epoch=0002-iteration=00000010"
    weight = contents.tensors["models/default/model/0.weight"]
    assert (weight.shape, weight.dtype) == ((8, 4), torch.float32)
    assert contents.tensors["optimizers/default/state/model/3.bias/exp_avg"].shape == (2,)
    assert contents.outline["engine"]["iteration"] == 10
    assert contents.outline["models"]["default"]["model"]["0.weight"] == weight


def test_verify_gives_the_manifest_of_a_whole_checkpoint(saved, tmp_path) -> None:
    assert verify(tmp_path / "epoch=0001-iteration=00000005").iteration == 5


@pytest.mark.parametrize("function", [read, verify])
def test_a_path_without_checkpoint(function, tmp_path) -> None:
    with pytest.raises(ValueError, match="is no checkpoint: that is an empty directory"):
        function(tmp_path)


def test_weights_alone_into_a_bare_model(saved, tmp_path) -> None:
    model = bare()
    load_weights(tmp_path, model)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), saved.model.state_dict().values(), strict=True)
    )


def test_weights_that_do_not_fit(saved, tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    with pytest.raises(
        ValueError, match=r"does not fit the model:\n  the checkpoint has 3.weight, 3.bias, which Sequential lacks"
    ):
        load_weights(tmp_path, model)
    load_weights(tmp_path, model, strict=False)
    assert torch.equal(model[0].weight, saved.model[0].weight)
    with pytest.raises(
        ValueError, match=r"0.weight of Sequential has shape \(7, 4\), in the checkpoint its shape is \(8, 4\)"
    ):
        load_weights(tmp_path, nn.Sequential(nn.Linear(4, 7)), strict=False)


def test_weights_of_a_damaged_checkpoint(saved, tmp_path) -> None:
    (file,) = (tmp_path / "epoch=0002-iteration=00000010").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointDamagedError, match="bytes instead of"):
        load_weights(tmp_path, bare())


def test_one_of_several_models(tmp_path) -> None:
    engine = Engine(lambda engine, batch: None)
    models = nn.Linear(2, 2), nn.Linear(3, 3)
    for name, model in zip(("critic", "generator"), models, strict=True):
        Update(engine, model, torch.optim.SGD(model.parameters()), name=name)
    engine.attach(Checkpoint(tmp_path))
    engine.run([0])
    with pytest.raises(ValueError, match="has several models; name= says which: critic/model, generator/model"):
        load_weights(tmp_path, nn.Linear(3, 3))
    with pytest.raises(ValueError, match="has no model 'generator': critic/model, generator/model"):
        load_weights(tmp_path, nn.Linear(3, 3), name="generator")
    model = nn.Linear(3, 3)
    load_weights(tmp_path, model, name="generator/model")
    assert torch.equal(model.weight, models[1].weight)
