"""Tells a newly set metric from one that was set earlier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leyden.engine.values.metric_values import MetricValues

if TYPE_CHECKING:
    from leyden.engine.state import State


class MetricWatch:
    """Knows which values of the metrics its owner has seen. A value that was set again is new, even if it is equal."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}  # how often each had been set

    def new(self, metrics: MetricValues) -> list[str]:
        """The names of the metrics that were set since `catch_up`, in their order."""
        return [name for name in metrics if metrics.times_set.get(name) != self._seen.get(name)]

    def catch_up(self, metrics: MetricValues) -> None:
        """Counts the present values as seen."""
        self._seen = dict(metrics.times_set)

    def state_dict(self) -> dict[str, int]:
        return dict(self._seen)

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        self._seen = dict(state_dict)


class WatchedMetric:
    """The same for one metric, over the runs of an engine: what is there when a run begins, restored perhaps, is old;
    a run that goes on, in this process or from a state, misses no value that was set while it was stopped.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.times_set = 0
        """How often it had been set when it was last seen; what its owner saves."""
        self._goes_on = False  # it is known which value was the last one seen

    def start(self, state: State) -> None:
        """Called when a run starts."""
        if not self._goes_on or state.iteration == 0:
            self.times_set = state.metrics.times_set.get(self.name, 0)
        self._goes_on = True

    def is_new(self, metrics: MetricValues) -> bool:
        """True if it was set since it was last seen; asking counts as seeing it."""
        times_set, before = metrics.times_set.get(self.name, 0), self.times_set
        self.times_set = times_set
        return times_set != before

    def load(self, times_set: int | None) -> None:
        """Goes on from a saved `times_set`; None where a checkpoint does not have it (schema 1)."""
        self._goes_on = times_set is not None
        self.times_set = times_set or 0
