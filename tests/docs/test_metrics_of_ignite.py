"""The table of docs/from-ignite-metrics.md: every metric of Ignite has a row, and what stands there gives its value."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import leyden.metrics
from leyden.engine import Engine

sys.path.insert(0, str(Path(__file__).parent))
from outputs_of_metrics import outputs

ignite = pytest.importorskip("ignite")
pytest.importorskip("torchmetrics")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.filterwarnings("ignore")  # what Ignite, torchmetrics and scikit-learn warn of

PAGE = (Path(__file__).parents[2] / "docs" / "from-ignite-metrics.md").read_text()


class Row(NamedTuple):
    theirs: str
    outputs: str
    ours: str
    differs: str

    @property
    def name(self) -> str:
        return re.match(r"\w+", self.theirs)[0]


ROWS = [Row(*found) for found in re.findall(r"^\| `(.+?)` \| ([^|]+) \| `(.+?)` \| (.*?) ?\|$", PAGE, re.MULTILINE)]


def public(module: Any) -> dict[str, Any]:
    return {name: each for name, each in vars(module).items() if not name.startswith("_")}


def exported() -> dict[str, Any]:
    """Every public metric of the installed Ignite, in whichever module it lies, and every function that makes one."""
    from ignite import metrics
    from ignite.metrics import Metric

    found = {}
    for module in pkgutil.walk_packages(metrics.__path__, "ignite.metrics."):
        for name, each in public(importlib.import_module(module.name)).items():
            is_metric = inspect.isclass(each) and issubclass(each, Metric) and each is not Metric
            if is_metric or (inspect.isfunction(each) and "MetricsLambda" in str(each.__annotations__.get("return"))):
                found[name] = each
    return found


def network(*last: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), *last).requires_grad_(False)


NETWORKS = {"extractor": network(nn.Linear(768, 8)), "classifier": network(nn.Linear(768, 5))}
THEIRS = {**public(nn), **public(nn.functional), **exported(), **NETWORKS, "torch": torch}
OURS = {**public(leyden.metrics), **NETWORKS}
exec("".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), OURS)


def their_value(row: Row, data: list[Any]) -> Any:
    engine = ignite.engine.Engine(lambda engine, batch: batch)
    eval(row.theirs, THEIRS).attach(engine, "value")
    return engine.run(data).metrics["value"]


def our_value(row: Row, data: list[Any]) -> Any:
    engine = Engine(lambda engine, batch: batch, training=False)
    eval(f'engine.attach_metric("value", {row.ours})', {**OURS, "engine": engine})
    return engine.run(data).metrics["value"]


def flat(value: Any) -> list[float]:
    """All numbers of a value, in their order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, torch.Tensor):
        value = value.reshape(-1).tolist()
    return [number for each in value for number in flat(each)] if isinstance(value, list | tuple) else [float(value)]


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(
        torch.tensor(flat(found), dtype=torch.float64),
        torch.tensor(flat(expected), dtype=torch.float64),
        rtol=1e-6,
        atol=1e-6,
    )


# -- what differs ------------------------------------------------------------------------------------------------------


def report(found: Any, expected: Any) -> None:
    for theirs, ours in {"precision": "precision", "recall": "recall", "f1-score": "f1"}.items():
        same(found[ours], [values[theirs] for label, values in expected.items() if label.isdigit()])


def curve(found: Any, expected: Any) -> None:
    points = list(zip(*(part.tolist() for part in found), strict=True))
    same(points[0], (0, 0, 1))
    assert len(points) > len(expected[0])
    for point in list(zip(*(part.tolist() for part in expected), strict=True))[1:]:
        assert any(point == pytest.approx(each, abs=1e-6) for each in points)


def rouge(found: Any, expected: Any) -> None:
    names = {"P": "precision", "R": "recall", "F": "fmeasure"}
    assert found.keys() == {f"rouge{kind}_{names[part]}" for kind, part in (key.split("-")[1:] for key in expected)}
    for key, value in expected.items():
        _, kind, part = key.split("-")
        same(found[f"rouge{kind}_{names[part]}"], value)


def rate(found: float, expected: float) -> None:
    assert found > 0
    assert expected > 0


DIFFERS: dict[str, Callable[[Any, Any], None]] = {
    # what is found here, and with Ignite
    "ClassificationReport": report,
    "RocCurve": curve,
    "MeanAbsoluteError": lambda found, expected: same(found, expected / 4),
    "MeanSquaredError": lambda found, expected: same(found, expected / 4),
    "RootMeanSquaredError": lambda found, expected: same(found, expected / 2),
    "Rouge": rouge,
    "RougeN": rouge,
    "RougeL": rouge,
    "VariableAccumulation": lambda found, expected: same(found, expected[0]),
    "Frequency": rate,
}
BY_ITSELF = {"ObjectDetectionAvgPrecisionRecall", "CommonObjectDetectionMetrics", "GpuInfo"}
"""Rows with a test of their own, below: they need packages or a GPU."""


# -- the rows ----------------------------------------------------------------------------------------------------------


def test_every_metric_of_ignite_has_a_row_and_every_row_a_metric() -> None:
    named = {row.name for row in ROWS}
    assert named == exported().keys(), f"the page does not fit the metrics of Ignite {ignite.__version__}"
    assert len(ROWS) == len(re.findall(r"^\| `", PAGE, re.MULTILINE)), "a row that is not understood"


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in BY_ITSELF], ids=lambda row: row[0])
def test_a_row_gives_ignites_value(row: Row) -> None:
    found, expected = our_value(row, outputs(row.outputs)), their_value(row, outputs(row.outputs))
    assert max(map(abs, flat(expected))) > 1e-3, "a value that tells something"
    DIFFERS.get(row.name, same)(found, expected)
    assert row.differs or row.name not in DIFFERS or row.name == "Frequency"


@pytest.mark.parametrize("name", ["mIoU", "MeanAveragePrecision"])
def test_a_class_that_never_occurs_is_left_out(name: str) -> None:
    (row,) = (row for row in ROWS if row.name == name)
    data = [(scores[:, [0, 1, 2, 3, 3]] * torch.tensor([1, 1, 1, 1, 0]), y % 4) for scores, y in outputs(row.outputs)]
    same(our_value(row, data), their_value(row, data) * 5 / 4)


def test_several_epochs_of_a_running_average() -> None:
    (row,) = (row for row in ROWS if row.name == "RunningAverage")
    going_on = row._replace(ours=row.ours.replace(")", ", epoch_bound=False)"))
    data = outputs(row.outputs)
    theirs = ignite.engine.Engine(lambda engine, batch: batch)
    eval(row.theirs, THEIRS).attach(theirs, "value")
    theirs.run(data, max_epochs=2)
    ours = {}
    for each in (row, going_on):
        engine = Engine(lambda engine, batch: batch, training=False)
        eval(f'engine.attach_metric("value", {each.ours})', {**OURS, "engine": engine})
        ours[each] = engine.run(data, max_epochs=2).metrics["value"]
    same(ours[going_on], theirs.state.metrics["value"])
    same(ours[row], our_value(row, data))


# -- what needs packages, or a GPU -------------------------------------------------------------------------------------

AREAS = {"S": "small", "M": "medium", "L": "large"}
KEYS = {
    "AP@50..95": "map",
    "AP@50": "map_50",
    "AP@75": "map_75",
    **{f"AR-{most}": f"mar_{most}" for most in (1, 10, 100)},
    **{f"AP-{area}": f"map_{AREAS[area]}" for area in AREAS},
    **{f"AR-{area}": f"mar_{AREAS[area]}" for area in AREAS},
}


@pytest.mark.parametrize("name", ["ObjectDetectionAvgPrecisionRecall", "CommonObjectDetectionMetrics"])
def test_boxes(name: str) -> None:
    (row,) = (row for row in ROWS if row.name == name)
    missing = [package for package in ("pycocotools", "torchvision") if find_spec(package) is None]
    assert all(package in row.differs for package in ("pycocotools", "torchvision"))
    if missing:
        with pytest.raises(ModuleNotFoundError, match=missing[0]):
            our_value(row, outputs(row.outputs))
        return
    found, expected = our_value(row, outputs(row.outputs)), their_value(row, outputs(row.outputs))
    if isinstance(expected, tuple):
        same((found["map"], found["mar_100"]), expected)
    else:
        assert expected.keys() == KEYS.keys()
        same([found[KEYS[key]] for key in expected], expected)


def test_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = (row for row in ROWS if row.name == "GpuInfo")
    if find_spec("pynvml") is None:
        with pytest.raises(ModuleNotFoundError, match="pynvml"):
            their_value(row, outputs(row.outputs))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20, 80))
    assert our_value(row, outputs(row.outputs)) == 75
