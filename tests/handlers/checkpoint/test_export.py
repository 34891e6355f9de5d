"""Weights out of checkpoints and models into safetensors files, and back; what other libraries write is read too."""

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from leyden.engine import Engine, Update
from leyden.handlers.checkpoint import (
    Checkpoint,
    CheckpointDamagedError,
    export_weights,
    load_weights,
    read,
    verify,
)
from leyden.handlers.training import EMA

SCRIPT = Path(__file__).parent / "scripts" / "sharded_export.py"


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("count", torch.tensor(3))


def equal(a, b):
    a, b = (each.state_dict() if isinstance(each, nn.Module) else each for each in (a, b))
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def bare():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))


@pytest.fixture
def saved(make_run, tmp_path):
    """A finished run with an average of its weights, whose checkpoints are in tmp_path / "kept"."""
    ema = EMA(0.5)
    run = make_run(Checkpoint(tmp_path / "kept"), ema)
    run.trainer.run(run.data, max_epochs=2)
    run.ema = ema
    return run


def test_out_of_a_checkpoint_without_model_or_engine(saved, tmp_path) -> None:
    file = export_weights(tmp_path / "kept", tmp_path / "out" / "model.safetensors", averaged=None)
    assert file == tmp_path / "out" / "model.safetensors"
    assert equal(load_file(file), saved.model.state_dict())
    model = bare()
    load_weights(file, model)
    assert equal(model, saved.model)
    load_weights(tmp_path / "out", model := bare())  # its folder, as one names a model of a hub
    assert equal(model, saved.model)


def test_the_file_says_where_it_comes_from(saved, tmp_path) -> None:
    file = export_weights(tmp_path / "kept", tmp_path / "w.safetensors", metadata={"license": "mine"})
    with safe_open(file, "pt") as opened:
        told = opened.metadata()
    assert told["format"] == "pt"
    assert told["torch"] == torch.__version__
    assert (told["epoch"], told["iteration"], told["license"]) == ("2", "10", "mine")
    assert "leyden" in told


def test_averages_in_the_place_of_the_weights(saved, tmp_path) -> None:
    from_checkpoint = export_weights(tmp_path / "kept", tmp_path / "a.safetensors", averaged="EMA")
    live = export_weights(saved.ema.averaged(), tmp_path / "b.safetensors")
    assert equal(load_file(from_checkpoint), load_file(live))
    assert not equal(load_file(live), saved.model.state_dict())
    load_weights(tmp_path / "kept", model := bare(), averaged="EMA")
    assert equal(model, saved.ema.averaged())


def test_averages_that_are_not_there(saved, make_run, tmp_path) -> None:
    with pytest.raises(ValueError, match="has no averages of 'SWA'; handlers that kept some: EMA"):
        load_weights(tmp_path / "kept", bare(), averaged="SWA")
    late = make_run(Checkpoint(tmp_path / "late"), EMA(start_step=100))
    late.trainer.run(late.data)
    with pytest.raises(ValueError, match="was saved before EMA had averaged anything"):
        load_weights(tmp_path / "late", bare(), averaged="EMA")


def test_averages_of_a_layer_that_is_called_module(make_run, tmp_path) -> None:
    def model():
        return nn.Sequential(OrderedDict(module=nn.Linear(4, 2)))

    ema = EMA(0.5)
    run = make_run(Checkpoint(tmp_path / "kept"), ema, model=model)
    run.trainer.run(run.data)
    load_weights(tmp_path / "kept", other := model(), averaged="EMA")
    assert equal(other, ema.averaged())


def test_averages_of_a_bf16_model_come_in_its_dtype(make_run, tmp_path) -> None:
    ema = EMA(0.5)
    run = make_run(Checkpoint(tmp_path / "kept"), ema, model=lambda: nn.Linear(4, 2).bfloat16())
    run.trainer.run([(x.bfloat16(), y) for x, y in run.data])
    load_weights(tmp_path / "kept", model := nn.Linear(4, 2).bfloat16(), averaged="EMA")
    assert equal(model, ema.averaged())


@pytest.mark.parametrize("from_checkpoint", [True, False])
def test_tied_weights_are_written_once_and_come_back_tied(from_checkpoint, tmp_path) -> None:
    model = Tied()
    source = model
    if from_checkpoint:
        engine = Engine(lambda engine, batch: None)
        Update(engine, model, torch.optim.SGD(model.parameters()))
        engine.attach(EMA(), Checkpoint(tmp_path / "kept"))
        engine.run([0])
        source = tmp_path / "kept"
    file = export_weights(source, tmp_path / "w.safetensors")
    assert set(load_file(file)) == {"embedding.weight", "count"}
    load_weights(file, other := Tied())
    assert equal(other, model)
    assert other.head.weight is other.embedding.weight
    untied = Tied()
    untied.head.weight = nn.Parameter(torch.zeros(5, 3))
    load_weights(file, untied)
    assert torch.equal(untied.head.weight, model.head.weight)


def test_tensors_that_share_memory_or_lie_in_it_otherwise(tmp_path) -> None:
    whole = torch.randn(4, 6)
    state = {"whole": whole, "turned": whole.t(), "part": whole[1:3], "row": torch.randn(1, 4).expand(3, 4)}
    state |= {
        "none": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
        "angle": torch.randn(2).to(torch.complex64),
    }
    file = export_weights(state, tmp_path / "w.safetensors")
    assert equal(load_file(file), state)
    assert file.stat().st_size < 1500


def test_averages_of_tied_weights(tmp_path) -> None:
    model = Tied()
    engine = Engine(lambda engine, batch: update.backward(model.head(model.embedding(batch)).square().mean()))
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=1.0))
    ema = EMA(0.5)
    engine.attach(ema, Checkpoint(tmp_path / "kept"))
    engine.run([torch.tensor([1, 2])] * 3)
    load_weights(tmp_path / "kept", other := Tied(), averaged="EMA")
    assert equal(other, ema.averaged())
    assert not equal(other, model)


def test_large_weights_go_into_shards_with_an_index(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(5)))  # 1088 bytes each
    index = export_weights(model, tmp_path / "model.safetensors", shard_bytes=2500)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    told = json.loads(index.read_text())
    assert told["metadata"]["total_size"] == 5 * 1088
    assert set(told["weight_map"]) == set(model.state_dict())
    for path in (index, tmp_path / "model.safetensors", tmp_path):
        other = nn.Sequential(*(nn.Linear(16, 16) for _ in range(5)))
        load_weights(path, other)
        assert equal(other, model)


def test_what_had_the_name_before_is_replaced(tmp_path) -> None:
    file = tmp_path / "model.safetensors"
    small, large = nn.Linear(2, 2), nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    for model, shard_bytes in ((small, None), (large, 1500), (small, None)):
        export_weights(model, file, shard_bytes=shard_bytes)
        load_weights(
            file, other := (nn.Linear(2, 2) if model is small else nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)))
        )
        assert equal(other, model)


def test_an_export_that_fails_leaves_the_old_file(tmp_path) -> None:
    file = export_weights(model := nn.Linear(2, 2), tmp_path / "model.safetensors")
    with pytest.raises(TypeError, match=r"weight is a torch.sparse_coo tensor"):
        export_weights({"weight": torch.eye(2).to_sparse()}, file)
    load_weights(file, other := nn.Linear(2, 2))
    assert equal(other, model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_export_that_fails_between_two_shards_mixes_nothing(monkeypatch, tmp_path) -> None:
    def write(tensors, file, metadata):
        if "00002-of" in str(file):
            raise OSError("the disk is full")
        save_file(tensors, file, metadata)

    file = tmp_path / "model.safetensors"
    old, new = (nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)) for _ in range(2))
    index = export_weights(old, file, shard_bytes=1500)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("safetensors.torch.save_file", write)
    with pytest.raises(OSError, match="the disk is full"):
        export_weights(new, file, shard_bytes=1500)
    load_weights(index, new)
    assert equal(new, old)
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_other_libraries(tmp_path) -> None:
    model = Tied()
    state = {name: value.clone() for name, value in model.state_dict().items() if name != "head.weight"}
    save_file(state, tmp_path / "one.safetensors")  # as transformers does: tied weights once, and nothing said
    save_model(model, str(tmp_path / "two.safetensors"))
    for name in ("one", "two"):
        load_weights(tmp_path / f"{name}.safetensors", other := Tied())
        assert equal(other, model)


def test_a_batch_norm_of_an_old_file_is_loaded_as_torch_does(tmp_path) -> None:
    state = {name: value for name, value in nn.BatchNorm1d(3).state_dict().items() if name != "num_batches_tracked"}
    save_file(state, tmp_path / "old.safetensors")
    file = export_weights(nn.BatchNorm1d(3), tmp_path / "new.safetensors")
    for path in (tmp_path / "old.safetensors", file):
        load_weights(path, nn.BatchNorm1d(3), strict=path == file)


def test_a_file_that_does_not_fit(tmp_path) -> None:
    file = export_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")
    model = nn.Linear(3, 4)
    before = model.weight.clone()
    with pytest.raises(
        ValueError, match=r"weight of Linear has shape \(4, 3\), in the checkpoint its shape is \(2, 3\)"
    ):
        load_weights(file, model)
    assert torch.equal(model.weight, before)
    with pytest.raises(ValueError, match=r"ModuleDict has other.weight, other.bias, which the checkpoint lacks"):
        load_weights(file, nn.ModuleDict({"other": nn.Linear(1, 1)}))
    with pytest.warns(UserWarning, match=r"nothing was loaded: .* has bias, weight, .* the model other.weight, other"):
        load_weights(file, nn.ModuleDict({"other": nn.Linear(1, 1)}), strict=False)


def test_a_wrapped_model(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    file = export_weights(torch.compile(model), tmp_path / "w.safetensors")
    assert set(load_file(file)) == {"0.weight", "0.bias"}


def test_a_state_that_is_no_tensor_is_left_out_and_told(tmp_path) -> None:
    with pytest.warns(UserWarning, match="not exported, since they are no tensors: note"):
        file = export_weights({"weight": torch.ones(2), "note": "text"}, tmp_path / "w.safetensors")
    assert set(load_file(file)) == {"weight"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"file": "model.bin"}, "to a file that ends with .safetensors, but got model.bin"),
        ({"averaged": "EMA"}, "choose from a checkpoint; of live averages give ema.averaged()"),
        ({"shard_bytes": 0}, "at least 1 byte"),
    ],
)
def test_mistakes(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        export_weights(nn.Linear(1, 1), **{"file": "w.safetensors", **arguments})


def test_a_file_has_a_local_path_or_the_url_of_one(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    file = export_weights(model := nn.Linear(2, 2), f"file://{tmp_path}/w.safetensors")
    assert file == tmp_path / "w.safetensors"
    load_weights(f"file://{file}", other := nn.Linear(2, 2))
    assert equal(other, model)
    with pytest.raises(ValueError, match=r"are exported to a local file, but got memory://w\.safetensors"):
        export_weights(model, "memory://w.safetensors")
    with pytest.raises(ValueError, match=r"is read from a local path, but got memory://w\.safetensors"):
        load_weights("memory://w.safetensors", model)
    assert list(tmp_path.iterdir()) == [file]


def test_a_dtype_that_the_files_can_not_hold(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"phase is of torch\.complex128, which safetensors' files can't hold"):
        export_weights({"phase": torch.ones(2, dtype=torch.complex128)}, tmp_path / "w.safetensors")


def test_no_file_is_put_into_a_checkpoint(saved, tmp_path) -> None:
    folder = read(tmp_path / "kept").path
    with pytest.raises(ValueError, match=rf"{folder} is a checkpoint, which a further file would damage"):
        export_weights(tmp_path / "kept", folder / "model.safetensors")
    verify(folder)


def test_a_file_has_one_model(tmp_path) -> None:
    file = export_weights(nn.Linear(1, 1), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds the weights of one model; averaged='EMA' is for a checkpoint"):
        load_weights(file, nn.Linear(1, 1), averaged="EMA")


def test_a_damaged_checkpoint_is_not_exported(saved, tmp_path) -> None:
    for file in (tmp_path / "kept").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointDamagedError):
        export_weights(tmp_path / "kept", tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.slow
def test_a_sharded_model_of_two_ranks(tmp_path) -> None:
    """Exported whole by both, and loaded into shards again."""
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[True, True], [True, True]]
    assert set(load_file(tmp_path / "live.safetensors")) == {"0.weight", "0.bias", "1.weight"}
