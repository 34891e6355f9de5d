"""What a ported script imports from leyden.contrib.ignite.metrics: the metric, or an error that says what to write."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from leyden.contrib.ignite.metrics.elsewhere import ELSEWHERE
from leyden.engine import Engine

sys.path.insert(0, str(Path(__file__).parent))
from outputs_of_metrics import outputs
from rows_of_metrics import DIFFERS, ROWS, THEIRS, Row, exported, public, same, their_value

pytestmark = pytest.mark.filterwarnings("ignore")  # what Ignite and scikit-learn warn of

MODULES = ["metrics", *(f"metrics.{each}" for each in ("clustering", "fairness", "gan", "nlp", "rec_sys"))]
MODULES += ["metrics.regression", "metrics.vision", "metrics.confusion_matrix"]


def in_contrib(module: str, name: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(f"from leyden.contrib.ignite.{module} import {name}", namespace)
    return namespace[name]


@pytest.mark.parametrize("module", MODULES)
def test_a_ported_import_gives_the_metric_or_says_what_to_write(module: str) -> None:
    theirs = importlib.import_module(f"ignite.{module}")
    names = exported().keys() & set(getattr(theirs, "__all__", dir(theirs)))
    assert names
    for name in names:
        if name not in ELSEWHERE:
            assert callable(in_contrib(module, name))
            continue
        row = next(row for row in ROWS if row.name == name)
        with pytest.raises(ImportError, match=re.escape(f'engine.attach_metric("name", {row.ours})')):
            in_contrib(module, name)


def test_other_names_are_missing_as_they_always_are() -> None:
    for module in MODULES:
        assert not hasattr(importlib.import_module(f"leyden.contrib.ignite.{module}"), "MeanOfEverything")
        with pytest.raises(ImportError, match="cannot import name 'MeanOfEverything'"):
            in_contrib(module, "MeanOfEverything")


def test_what_is_told_is_told_of_metrics_that_are_not_there() -> None:
    assert ELSEWHERE.keys() <= exported().keys()
    for module in MODULES:
        assert not ELSEWHERE.keys() & public(importlib.import_module(f"leyden.contrib.ignite.{module}")).keys()


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in ELSEWHERE], ids=lambda row: row[0])
def test_what_a_ported_script_writes_gives_ignites_value(row: Row) -> None:
    names = {name: each for name, each in THEIRS.items() if name not in exported()}
    for module in MODULES:
        names |= public(importlib.import_module(f"leyden.contrib.ignite.{module}"))
    engine = Engine(lambda engine, batch: batch, training=False)
    eval(row.theirs, names).attach(engine, "value")
    found = engine.run(outputs(row.outputs)).metrics["value"]
    expected = their_value(row, outputs(row.outputs))
    DIFFERS.get(row.name, same)(found, expected)
