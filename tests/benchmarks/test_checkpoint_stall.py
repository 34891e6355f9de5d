"""The benchmark of saves runs in small, where no peer is installed, and sees whether the right thing was saved."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import checkpoint_stall

    monkeypatch.setattr(checkpoint_stall, "LIGHTNING", False)
    monkeypatch.delitem(checkpoint_stall.RIVALS, "Lightning AsyncCheckpointIO", raising=False)
    return checkpoint_stall


def test_each_way_of_saving_saves_what_was_there(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoint_stall.py", "--megabytes", "1", "--repeats", "2"])
    benchmark.main()
    printed = capsys.readouterr().out
    assert "pytorch-lightning is not installed: left out" in printed
    assert "A save of 1 MB in the midst of training, 2 of each" in printed
    assert [name for name in benchmark.RIVALS if f"\n  {name} " in printed] == list(benchmark.RIVALS)
    assert printed.splitlines()[-1].split()[-3:] == ["all", "all", "yes"]


def test_a_save_without_a_copy_is_seen(benchmark: ModuleType, tmp_path: Path) -> None:
    class Live(benchmark.Rival):
        def save(self) -> None:
            self.taken = self.training.model[0].weight.detach()

        def first_weight(self) -> object:
            return self.taken

    training = benchmark.Training(1)
    seen = benchmark.measure(training, {"live": Live(training, tmp_path / "live")}, repeats=1)
    assert not seen["live"].right
    assert len(seen["live"].stalls) == 1
