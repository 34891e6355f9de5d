"""The table of docs/from-ignite-metrics.md: every metric of Ignite has a row, and what stands there gives its value."""

from __future__ import annotations

import math
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from leyden.engine import Engine

sys.path.insert(0, str(Path(__file__).parent))
from outputs_of_metrics import outputs
from rows_of_metrics import DIFFERS, OURS, PAGE, ROWS, THEIRS, Row, exported, flat, ignite, our_value, same, their_value

NotComputableError = ignite.exceptions.NotComputableError
pytestmark = pytest.mark.filterwarnings("ignore")  # what Ignite, torchmetrics and scikit-learn warn of

BY_ITSELF = {"ObjectDetectionAvgPrecisionRecall", "CommonObjectDetectionMetrics", "GpuInfo"}
"""Rows with a test of their own, at the end: they need packages or a GPU."""


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


def test_a_group_that_does_not_occur() -> None:
    rows = {row.name: row for row in ROWS}
    data = [(scores, y, groups * 0) for scores, y, groups in outputs("scores, classes, groups")]
    assert math.isnan(our_value(rows["DemographicParityDifference"], data))
    with pytest.raises(NotComputableError):
        their_value(rows["DemographicParityDifference"], data)
    assert their_value(rows["SubgroupMetric"], data).keys() == {0}
    with pytest.raises(KeyError, match="no metric 'value'"):
        our_value(rows["SubgroupMetric"], data)


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
