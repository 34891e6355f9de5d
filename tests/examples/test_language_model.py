"""The language model, run as a user runs it: it learns, and accumulation by tokens is the big batch."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from running import TWO_RANKS, output_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "language_model.py"
TINY = ["--layers", "1", "--heads", "2", "--width", "32", "--context", "48", "--texts", "400"]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    import language_model

    return language_model


def run_example(*arguments: str, python: list[str] | None = None) -> str:
    return output_of(EXAMPLE, *TINY, *arguments, python=python)


def figures(output: str, pattern: str) -> list[float]:
    found = re.findall(pattern, output, re.MULTILINE)
    assert found, output
    return [float(each) for each in found]


@pytest.mark.parametrize("python", [[], TWO_RANKS], ids=["one process", "two ranks"])
def test_it_learns(python: list[str]) -> None:
    output = run_example("--epochs", "3", python=python)
    losses = figures(output, r"^epoch \d: validation loss ([\d.]+) after")
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 4  # before training and after each epoch
    assert losses[0] > 5  # nearly ln(258): it knows nothing
    assert losses[-1] < 3.8
    assert figures(output, r"s on (\d) process") == [2 if python else 1]
    assert output.count("a sample        'Return the ") == 1


def test_accumulation_by_tokens_is_the_big_batch_and_by_means_is_not() -> None:
    output = run_example("--compare", "--context", "128", "--accumulate", "4")
    print(output)
    (moved,) = figures(output, r"^big batch from the beginning\s+(\S+)$")
    (by_tokens,) = figures(output, r"^accumulated by tokens from big batch\s+(\S+)$")
    (by_means,) = figures(output, r"^accumulated by means from big batch\s+(\S+)$")
    assert moved > 0.1
    assert by_tokens <= 1e-6
    assert by_means >= 100 * by_tokens
    assert by_means >= 1e-4


@pytest.mark.slow
def test_it_keeps_and_logs_if_told_to(tmp_path: Path) -> None:
    keeping = ["--checkpoints", str(tmp_path / "kept"), "--mlflow", f"sqlite:///{tmp_path}/mlflow.db"]
    first = run_example("--epochs", "1", *keeping)
    assert (tmp_path / "mlflow.db").exists()
    again = run_example("--epochs", "2", *keeping)
    assert re.findall(r"^epoch (\d)", first, re.MULTILINE) == ["0", "1"]
    assert re.findall(r"^epoch (\d)", again, re.MULTILINE) == ["1", "2"]


def test_the_text_is_the_same_each_time_and_each_docstring_comes_once(example: ModuleType) -> None:
    texts = example.read_docstrings()
    assert texts == example.read_docstrings()
    assert len(texts) == len(set(texts)) > 2000


def test_a_text_predicts_its_bytes_and_its_end(example: ModuleType) -> None:
    inputs, targets = example.collate([example.encode("ab", 8), example.encode("abcdefghij", 8)])
    end, padding = example.END, example.PADDING
    assert inputs.tolist() == [[end, 97, 98, end, *[padding] * 4], [end, 97, 98, 99, 100, 101, 102, 103]]
    assert targets.tolist() == [[97, 98, end, *[padding] * 5], [97, 98, 99, 100, 101, 102, 103, 104]]
    assert example.number_of_targets((inputs, targets)) == 11


def test_padding_changes_nothing_for_the_text_before_it(example: ModuleType) -> None:
    model = example.GPT(example.Shape(layers=2, heads=2, width=16, context=8, vocabulary=258))
    short, long = example.encode("ab", 8), example.encode("abcdefghij", 8)
    alone, together = (example.collate(texts)[0] for texts in ([short], [short, long]))
    assert torch.allclose(model(alone)[0, :3], model(together)[0, :3], atol=1e-5)


def test_the_preset_is_gpt_2_small(example: ModuleType) -> None:
    with torch.device("meta"):
        model = example.GPT(example.PRESETS["124m"])
    # As published with 50,257 tokens; this vocabulary has 47 more, to be a multiple of 64.
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808 + 47 * 768
