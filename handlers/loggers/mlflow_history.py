"""The points that a run in MLflow has already, when it is gone on with: none of them is written twice."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from leyden.handlers.loggers.entries import Value

HistoryPoint = tuple[int, float | None]
"""Step and number as MLflow gives them back; None for what is not a number."""


class MLflowHistory:
    """Of a run that was killed after its last checkpoint, MLflow has points that come again; equal ones are left out.

    A point of the same step with another number is written: MLflow can't replace one, and the later one is true.
    What a metric has is asked for once, and only if it has steps as far as those that come.
    """

    def __init__(self, client: Any, run_id: str, latest: Iterable[Any]) -> None:
        """latest: the last point of each metric."""
        self._client = client
        self._run_id = run_id
        self._latest = {metric.key: int(metric.step) for metric in latest}
        self._points: dict[str, set[HistoryPoint]] = {}

    def without_known(self, values: list[Value]) -> list[Value]:
        """Those that the run did not have when it was gone on with. Raises what MLflow's client raises."""
        return [value for value in values if not self._has(value)]

    def _has(self, value: Value) -> bool:
        if value.step > self._latest.get(value.name, -sys.maxsize):
            return False
        if value.name not in self._points:
            history = self._client.get_metric_history(self._run_id, value.name)
            self._points[value.name] = {_point(metric.step, metric.value) for metric in history}
        return _point(value.step, value.number) in self._points[value.name]


def _point(step: int, number: float) -> HistoryPoint:
    largest = sys.float_info.max  # MLflow's databases keep infinity as that
    return step, None if math.isnan(number) else min(max(number, -largest), largest)
