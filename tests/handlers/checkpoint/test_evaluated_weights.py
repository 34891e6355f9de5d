"""load_weights and export_weights give the weights that the run evaluated, and say where these are averages."""

import pytest
import torch
from torch import nn

from leyden.handlers import EMA, Checkpoint
from leyden.handlers.checkpoint import export_weights, load_weights


def loaded(path, **options):
    torch.manual_seed(7)
    model = nn.Linear(4, 2)
    load_weights(path, model, **options)
    return model.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def trained(make_run, tmp_path):
    def train(*handlers):
        run = make_run(*handlers, Checkpoint(tmp_path / "kept"), model=lambda: nn.Linear(4, 2))
        run.trainer.run(run.data, max_epochs=2)
        return {name: value.clone() for name, value in run.model.state_dict().items()}

    return train


def test_the_averages_that_were_evaluated_are_given_and_said(trained, tmp_path, capsys) -> None:
    ema = EMA(0.5)
    own = trained(ema)
    capsys.readouterr()
    assert same(loaded(tmp_path / "kept"), ema.averaged())
    assert "are the averages of EMA, which its run evaluated; averaged=None takes" in capsys.readouterr().out
    assert same(loaded(tmp_path / "kept", averaged=None), own)
    assert not same(own, ema.averaged())
    assert capsys.readouterr().out == ""


def test_so_does_an_export(trained, tmp_path, capsys) -> None:
    ema = EMA(0.5)
    own = trained(ema)
    file = export_weights(tmp_path / "kept", tmp_path / "model.safetensors")
    assert "averages of EMA" in capsys.readouterr().out
    assert same(loaded(file), ema.averaged())
    raw = export_weights(tmp_path / "kept", tmp_path / "raw.safetensors", averaged=None)
    assert same(loaded(raw), own)


def test_averages_that_were_not_evaluated_are_left_where_they_are(trained, tmp_path, capsys) -> None:
    own = trained(EMA(0.5, evaluate=False))
    capsys.readouterr()
    assert same(loaded(tmp_path / "kept"), own)
    assert capsys.readouterr().out == ""


def test_of_two_averages_the_evaluated_one(trained, tmp_path) -> None:
    fast, slow = EMA(0.1, evaluate=False), EMA(0.9)
    trained(fast, slow)
    assert same(loaded(tmp_path / "kept"), slow.averaged())
    assert same(loaded(tmp_path / "kept", averaged="EMA(decay=0.1, evaluate=False)"), fast.averaged())
