"""The bars that are counted, not timed, held with every test run; and the script runs where no peer is installed."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class QuickClock:
    """The time, if a step took well under a millisecond; on a busy machine the bar would be drawn at each of them."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1e-4
        return self.now


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("leyden.handlers.monitoring.pace.time", QuickClock())
    import engine_overhead

    monkeypatch.setattr(engine_overhead, "IGNITE", False)
    monkeypatch.setattr(engine_overhead, "LIGHTNING", False)
    return engine_overhead


def test_a_step_makes_no_more_calls_than_its_bars_allow(benchmark: ModuleType, tmp_path: Path) -> None:
    loops = benchmark.all_loops()
    calls = {name: benchmark.calls_a_step(maker, tmp_path / name) for name, maker in loops.items()}
    assert calls["bare loop"].total > 50  # else the step itself was not counted
    assert [bar for bar in benchmark.call_bars(calls) if not bar.holds] == []


def test_the_loops_that_are_counted_do_their_work(benchmark: ModuleType, tmp_path: Path) -> None:
    calls = benchmark.calls_a_step(benchmark.all_loops()["leyden, all attached"], tmp_path).by_function

    def seen(name: str) -> float:
        return sum(number for function, number in calls.items() if name in function)

    assert all(seen(name) >= 1 for name in ("ClipGradients.", "RunningAverage.", "StepLR.get_lr"))
    assert all(0 < seen(name) < 1 for name in ("ProgressBar.", "loggers.base.Logger."))  # now and then, not each step


def test_frames_stay_few_and_missing_peers_are_named(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["engine_overhead.py", "--only", "d"])
    benchmark.main()
    printed = capsys.readouterr().out
    assert "pytorch-ignite is not installed: left out" in printed
    assert "pytorch-lightning is not installed: left out" in printed
    verdicts = [line.split()[-1] for line in printed.split("Bars")[1].splitlines() if line.startswith("  (d)")]
    assert verdicts == ["yes", "yes"]
