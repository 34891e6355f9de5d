"""The benchmark of a GPT's step runs where there is no GPU, and compares loops that do the same."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--preset", "tiny", "--batch-size", "1", "--steps", "2"]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpt_step

    return gpt_step


def printed_by(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["gpt_step.py", *SMALL, *arguments])
    benchmark.main()
    return capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="the figures of a CPU")
def test_ten_handlers_and_the_loop_by_hand_train_the_same_weights(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = printed_by(benchmark, monkeypatch, capsys, "--repeats", "2", "--accumulate", "3", "--peak", "1")
    assert "attached: 10 handlers" in printed
    assert "of weights and averages afterwards: 0\n" in printed
    assert printed.count("%") == 2  # the MFU of each
    assert "a GPU's bar" in printed


def test_loops_that_train_otherwise_are_seen_to(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    task = benchmark.Task(benchmark.PRESETS["tiny"], 1, 2, False, torch.device("cpu"))
    loops = {"bare loop": benchmark.bare(task)}
    with monkeypatch.context() as patch:
        patch.setattr("_gpt_loops.DECAY", 0.9)
        loops["leyden"] = benchmark.attached(task)
    benchmark.seconds_a_step(loops, task, steps=1, repeats=1)
    assert benchmark.largest_difference(loops) > 0


def test_the_operations_of_gpt_2_small(benchmark: ModuleType) -> None:
    shape = benchmark.PRESETS["124m"]
    assert benchmark.flops_a_token(shape, 124_475_904) == 6 * 123_689_472 + 12 * 12 * 12 * 64 * 1024


def test_only_whole_steps_are_timed(benchmark: ModuleType) -> None:
    task = benchmark.Task(benchmark.PRESETS["tiny"], 1, 3, False, torch.device("cpu"))
    data = benchmark.TimedBatches(task, first=2, steps=4)
    taken: list[object] = []
    moments: list[int] = []
    data._now = lambda: moments.append(len(taken))
    for batch in data:
        taken.append(batch)
    assert len(data) == len(taken) == 21
    assert moments == [6, 18]
