"""Tells a metric that was set anew from one that still stands there from earlier."""

from __future__ import annotations

from collections.abc import Mapping

from leyden.engine.metric_values import MetricValues


class MetricWatch:
    """Knows which values of the metrics its owner has seen. A value that was set again is new, even if it is equal."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}  # how often each had been set

    def new(self, metrics: MetricValues) -> list[str]:
        """Names of those that were set since `catch_up`, in their order."""
        return [name for name in metrics if metrics.times_set.get(name) != self._seen.get(name)]

    def catch_up(self, metrics: MetricValues) -> None:
        """What is there now is seen."""
        self._seen = dict(metrics.times_set)

    def state_dict(self) -> dict[str, int]:
        return dict(self._seen)

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        self._seen = dict(state_dict)
