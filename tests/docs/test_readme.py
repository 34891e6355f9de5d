"""What the README shows runs as it stands there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import leyden.handlers
import leyden.metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def names() -> dict[str, Any]:
    """What the README takes for granted: a model and two loaders."""
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    samples = TensorDataset(x, (x.sum(1) > 0).long())
    return {
        "Net": lambda: nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 2)),
        "model": nn.Linear(4, 2),
        "optimizer": None,
        "train_loader": DataLoader(samples, batch_size=8, shuffle=True),
        "test_loader": DataLoader(samples, batch_size=16),
    }


def test_the_example(
    names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[0], names)
    assert names["trainer"].state.epoch > 5
    assert names["trainer"].state.metrics["val/accuracy"] > 0.8
    assert (tmp_path / "mlflow.db").is_file()
    assert list((tmp_path / "runs" / "digits").iterdir())
    assert "Events.EPOCH_COMPLETED" in capsys.readouterr().out


def test_a_step_of_ones_own(names: dict[str, Any]) -> None:
    names["optimizer"] = torch.optim.SGD(names["model"].parameters(), lr=0.1)
    before = names["model"].weight.clone()
    exec(EXAMPLES[1], names)
    names["trainer"].run([torch.ones(3, 4)] * 2)
    assert not torch.equal(names["model"].weight, before)


def test_its_table_has_every_handler() -> None:
    table = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert table == {name for name in leyden.handlers.__all__ if hasattr(getattr(leyden.handlers, name), "attach")} - {
        "Logger"
    }


def test_it_names_every_metric() -> None:
    metrics = {name: each for name, each in vars(leyden.metrics).items() if name in leyden.metrics.__all__}
    made = {
        name
        for name, each in metrics.items()
        if inspect.isclass(each) and issubclass(each, leyden.metrics.Metric) and not inspect.isabstract(each)
    }
    sentence = README[README.index("Metrics (`leyden.metrics`)") : README.index("## Further")]
    assert set(re.findall(r"`(\w+)`", sentence)) == made - {"Derived", "MetricsLambda"}  # which arithmetic makes


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
