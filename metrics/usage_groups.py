"""Groups of metrics that are measured at other times than each epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order
from leyden.engine.events import AnyEvent
from leyden.engine.values import Deferred
from leyden.metrics.computing import computed
from leyden.metrics.errors import NotComputableError
from leyden.metrics.group import MetricGroup
from leyden.metrics.results import plain
from leyden.metrics.states import StateValue
from leyden.metrics.usage import EPOCH_WISE, MetricUsage

if TYPE_CHECKING:
    from leyden.metrics.base import Metric

Usage: TypeAlias = MetricUsage | AnyEvent | None
"""When a metric is reset and computed; by default each epoch."""


def add_to_group(engine: Engine[Any, Any], name: str, metric: Metric, usage: MetricUsage) -> None:
    """Adds the metric to the engine's group with that usage, which is attached if there is none."""
    groups = MetricGroup.all_of(engine)
    group = next((each for each in groups if each.usage == usage), None)
    if group is not None:
        group.add(name, metric, [each for each in groups if each is not group])
        return
    group = _made(usage)
    group.trains = engine.training
    group.add(name, metric, groups)
    engine.attach(group)


def remove_from_groups(engine: Engine[Any, Any], metric: Metric) -> None:
    """Takes the metric out of the engine's groups. Raises ValueError if it is in none."""
    groups = [group for group in MetricGroup.all_of(engine) if metric in group.metrics.values()]
    if not groups:
        raise ValueError(f"this {type(metric).__name__} is not attached to this engine")
    for group in groups:
        group.remove(engine, metric)


def _made(usage: MetricUsage) -> MetricGroup:
    if usage == EPOCH_WISE:
        return MetricGroup()
    return EachIteration(usage) if usage.each_iteration else AtEvents(usage)


class AtEvents(MetricGroup):
    """Metrics with a MetricUsage of other events."""

    told_apart_by = ("times",)

    def __init__(self, usage: MetricUsage) -> None:
        super().__init__()
        self.usage = usage
        self.times = str(usage)

    def attach(self, engine: Engine[Any, Any]) -> None:
        self.trains = engine.training
        usage = self.usage
        engine.add_event_handler(Events.STARTED, self.start, order=Order.METRICS)
        if usage.started is not None and usage.started != Events.STARTED:  # that is also where a run goes on
            engine.add_event_handler(usage.started, self.start_epoch, order=Order.METRICS)
        engine.add_event_handler(usage.iteration_completed, self.update, order=Order.METRICS)
        engine.add_event_handler(usage.completed, self.complete, order=Order.METRICS)
        engine.declare_metrics(self.names)

    def start(self, engine: Engine[Any, Any]) -> None:
        if engine.state.iteration == 0:
            self.start_epoch()
        self._check_use()
        self._even_out()

    def _counts_on(self) -> bool:
        return True

    def complete(self, engine: Engine[Any, Any]) -> None:
        self._check_use()
        self._write(engine)
        if self.usage.started is None:
            self._reset(self._updated)


class EachIteration(AtEvents):
    """Metrics whose value can be read after each iteration: of the last batches, or of all since a beginning.

    A value of this rank is computed when it is read; at an epoch's end the value over all ranks is there, on which
    ranks can decide together.
    """

    shared_out = "first"

    def __init__(self, usage: MetricUsage) -> None:
        super().__init__(usage)
        self._window = usage.window
        self._batches: dict[Metric, deque[dict[str, StateValue]]] = {}
        self._shown: list[tuple[str, Deferred]] = []
        self._known: dict[str, Any] = {}  # the values that were read since the last batch

    def update(self, engine: Engine[Any, Any]) -> None:
        output = engine.state.output
        for metric in self._updated:
            if self._window is not None:
                metric.reset()
            metric.observe(output)
            if self._batches:
                self._batches[metric].append(_held(metric.states()))
        self._known.clear()
        metrics = engine.state.metrics
        for name in list(self._items):
            self._leave_without(engine, name)  # of an epoch before, not all of which may be shown below
        for name, value in self._shown:
            metrics[name] = value

    def complete(self, engine: Engine[Any, Any]) -> None:
        self._check_use()
        self._carry(self._updated)
        self._write(engine)

    def _carry(self, metrics: Sequence[Metric]) -> None:
        """Has each of these stand for its last batches, if it keeps them."""
        for metric in metrics:
            if metric in self._batches:
                metric.reset()
                metric.carried = list(self._batches[metric])

    def _read(self, name: str, key: str | None) -> Any:
        """The value, or the item of it that has this key."""
        if name not in self._known:
            self._known[name] = self._of_this_rank(self.metrics[name])
        value = self._known[name]
        return value.get(key) if key is not None and isinstance(value, Mapping) else value

    def _of_this_rank(self, metric: Metric) -> Any:
        self._carry(metric.sources())
        values = computed(metric.sources(), together=False)
        if any(isinstance(value, NotComputableError) for value in values.values()):
            return None
        return plain(metric.result(values))

    def _arrange(self) -> None:
        super()._arrange()
        if self._window is not None and self._window > 1:
            self._batches = {
                metric: self._batches.get(metric) or deque(metric.carried, maxlen=self._window)
                for metric in self._updated
            }
        self._known.clear()
        self._shown = [
            (metric.item_name(name, key) if key is not None else name, Deferred(partial(self._read, name, key)))
            for name, metric in self.metrics.items()
            for key in (None, *metric.result_keys)
        ]

    def _reset(self, metrics: Sequence[Metric]) -> None:
        super()._reset(metrics)
        self._known.clear()
        for metric in metrics:
            if metric in self._batches:
                self._batches[metric].clear()

    def rank_state_dict(self) -> dict[str, Any]:
        self._carry(self._updated)
        return super().rank_state_dict()

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Where the number of ranks has changed, the ranks begin anew: the last batches of a rank are not those of
        another.
        """
        if len(states) == dist.data_size():
            super().load_rank_state_dicts(states)


def _held(states: dict[str, StateValue]) -> dict[str, StateValue]:
    """States that a reset of the metric leaves as they are."""
    return {name: list(value) if isinstance(value, list) else value for name, value in states.items()}
