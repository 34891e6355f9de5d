"""The bars of benchmarks/metrics.py that are counted are held with every test run; and it runs without its peers."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("metrics_benchmark", BENCHMARKS / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)  # by another name than that of leyden's room
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WAITED", 3)  # whoever waits, does so at each update
    return module


def test_an_update_makes_no_more_calls_than_those_of_its_peers(benchmark: ModuleType) -> None:
    pytest.importorskip("ignite")
    found = benchmark.calls("cpu")
    assert all(each["leyden"] > 20 for each in found.values())  # else the update itself was not counted
    assert [bar for bar in benchmark.bars(found, "calls") if bar[-1] != "yes"] == []


def test_no_update_of_a_native_metric_waits(benchmark: ModuleType) -> None:
    assert {name: waits for name, waits in benchmark.waits_of_natives("cpu").items() if waits} == {}
    assert {row: each["leyden"] for row, each in benchmark.waits_of_rivals("cpu").items() if each["leyden"]} == {}


def test_a_wait_is_seen(benchmark: ModuleType) -> None:
    import torch
    from _waits import waits

    values = torch.rand(3)
    assert waits(lambda: values.sum().item(), 10, "cpu") == 10
    assert waits(lambda: values[values > 0.5], 10, "cpu") >= 10
    assert waits(lambda: values + 1, 10, "cpu") == 0


def test_without_peers_they_are_named(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (benchmark, sys.modules["_metric_rivals"]):
        monkeypatch.setattr(module, "IGNITE", False)
        monkeypatch.setattr(module, "TORCHMETRICS", False)
    monkeypatch.setattr(sys, "argv", ["metrics.py", "--only", "calls", "waits"])
    benchmark.main()
    printed = capsys.readouterr().out
    assert "pytorch-ignite is not installed: left out" in printed
    assert "torchmetrics is not installed: left out" in printed
    assert "NO" not in printed.split("Bars")[1]
