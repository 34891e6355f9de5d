"""What the pages show runs as it stands there, from the first line of a page to its last, with nothing else given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


def run_page(name: str) -> None:
    source = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL))
    exec(compile(source, name, "exec"), {"__name__": "__main__"})


def test_writing_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    run_page("writing-a-handler.md")
    shown = capsys.readouterr().out.splitlines()
    printed = [line for line in shown if not line.startswith("Checkpoint")]
    assert [line.split()[0] for line in printed[:8]] == ["10", "20", "30", "40", "50", "60", "70", "80"]
    assert float(printed[8]) > 0
    assert printed[9] == "480"
    assert "ADAPT  SmallWeights" in "\n".join(printed)


def test_steps_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    run_page("steps.md")
    windows, several_losses, rates, late, failed, driven, counted, *told = capsys.readouterr().out.splitlines()
    assert windows == several_losses == "12 3"
    assert rates == "[0.0, 0.0]"
    assert late == "AdamW"
    assert failed == "12 11"
    assert driven == counted == "12"
    assert told == ["six more steps"] * 2


def test_models_of_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    run_page("transformers.md")
    accuracy, difference = map(float, capsys.readouterr().out.splitlines()[-2:])
    assert accuracy > 0.8
    assert difference < 1e-5


def test_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page("logging.md")
    from tensorboardX.proto.event_pb2 import Event

    steps: dict[str, list[int]] = {}
    (path,) = (tmp_path / "runs" / "logging").rglob("events.out.tfevents.*")
    data, place = path.read_bytes(), 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        event = Event.FromString(data[place + 12 : place + 12 + length])
        place += 12 + length + 4
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    for name in ("train/loss", "train/lr", "train/epoch"):
        assert steps[name] == [10, 20, 30, 40, 50, 60]
    assert steps["val/accuracy"] == steps["val/loss"] == [20, 40, 60]
    assert steps["train/weight_norm"] == steps["train/weights"] == [20, 40, 60]
    assert {name.partition("/")[0] for name in steps if "hparams" not in name and "text" not in name} >= {
        "train",
        "val",
    }


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (DOCS / page).read_text()):
        assert (DOCS / link).exists(), link


def test_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    run_page("metrics.md")
    names, kappa, four, eight, balanced, largest = capsys.readouterr().out.splitlines()
    assert names == "['accuracy', 'f1', 'loss']"
    assert kappa == "True True"
    assert four.startswith("4 ['accuracy of 4', 'batch accuracy', 'recent accuracy'")
    assert eight.startswith("8 ")
    assert (balanced, largest) == ("True", "2.0")
