"""What the page on checkpoints shows runs as it stands there, one part after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import leyden.engine
from leyden.metrics import Accuracy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "checkpoints.md").read_text()
GOES_ON, WHEN, WEIGHTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def script() -> dict[str, Any]:
    """A process anew: a model, data, a trainer and an evaluator."""
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    samples = TensorDataset(x, (x.sum(1) > 0).long())
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return {
        "model": model,
        "trainer": leyden.engine.supervised_trainer(model, optimizer, nn.CrossEntropyLoss()),
        "evaluator": leyden.engine.supervised_evaluator(model, metrics={"accuracy": Accuracy()}),
        "train_loader": DataLoader(samples, batch_size=8, shuffle=True),
        "test_loader": DataLoader(samples, batch_size=16),
    }


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    first = script()
    exec(GOES_ON, first)
    second = script()
    ran = []
    second["trainer"].add_event_handler(leyden.engine.Events.EPOCH_STARTED, lambda: ran.append(1))
    exec(GOES_ON.replace("max_epochs=3", "max_epochs=5"), second)
    assert len(ran) == 2, "the second start goes on"

    (tmp_path / "again").mkdir()
    monkeypatch.chdir(tmp_path / "again")
    third = script()
    exec(WHEN, third)
    kept = sorted(path.name for path in Path("runs/digits").glob("epoch=*"))
    assert 3 <= len(kept) <= 5, kept
    assert kept[-1] == "epoch=0003-iteration=00000024"

    weights = third["model"].weight.clone()
    nn.init.zeros_(third["model"].weight)
    exec(WEIGHTS, third)
    assert torch.equal(third["model"].weight, weights)
    assert "models/default/model/weight" in capsys.readouterr().out
    assert Path("model.safetensors").is_file()


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
