"""The rows of docs/from-ignite-metrics.md, the value of each under both engines, and what differs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import leyden.metrics
from leyden.engine import Engine

ignite = pytest.importorskip("ignite")
pytest.importorskip("torchmetrics")
pytest.importorskip("sklearn")

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


@cache
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


def network(width: int) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, width)).requires_grad_(False)


NETWORKS = {"extractor": network(8), "classifier": network(5)}
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
