"""The metrics of one engine: updated together, reduced together, written into its state."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order
from leyden.metrics.computing import computed
from leyden.metrics.errors import NotComputableError
from leyden.metrics.reduction import reduced_states
from leyden.metrics.results import plain
from leyden.metrics.usage import EPOCH_WISE, MetricUsage

if TYPE_CHECKING:
    from leyden.metrics.base import Metric
    from leyden.metrics.states import StateValue


class _Live:
    """A metric whose tensor stands in `state.metrics` at every iteration; `shown` is the tensor that was put there."""

    __slots__ = ("metric", "name", "shown")

    def __init__(self, name: str, metric: Any) -> None:
        self.name = name
        self.metric = metric
        self.shown: torch.Tensor | None = None


@runtime_checkable
class EvenedOut(Protocol):
    """A metric whose states another number of ranks can't divide among them: each goes on from their average."""

    def even_out(self, whole: Mapping[str, StateValue]) -> None:
        """`whole`: the states over all ranks. Called as a run starts, once the states that were saved are loaded."""


class MetricGroup:
    """The handler behind `metric.attach(engine, name)`: one for an engine, however many metrics it has.

    A metric that several derived ones use is updated, reduced and computed once. Where an epoch ends, all states are
    reduced in at most four collectives; in one process with none. A run that goes on in mid-epoch goes on with the
    states of that epoch, also in another process, and with another number of ranks.
    """

    shared_out = "dealt"
    usage: MetricUsage = EPOCH_WISE
    told = False
    """Metrics may be added or removed between runs without changing the training."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self._sources: dict[Metric, str] = {}  # with the name under which its state is saved
        self._updated: tuple[Metric, ...] = ()
        self._live: tuple[_Live, ...] = ()
        self._in_epoch = False
        self._uneven = False  # the states are of another number of ranks
        self._waiting: dict[str, tuple[list[Any], bool]] = {}  # loaded states of metrics that are not attached yet
        self._items: dict[str, list[str]] = {}  # what the last value of a metric that is a mapping put into the state
        self._told: set[str] = set()
        self.trains = True  # its engine trains

    @staticmethod
    def all_of(engine: Engine[Any, Any]) -> list[MetricGroup]:
        """The engine's groups: one for each usage."""
        found: list[MetricGroup] = engine.find_handlers(MetricGroup)
        return found

    def attach(self, engine: Engine[Any, Any]) -> None:
        self.trains = engine.training
        engine.add_event_handler(Events.STARTED, self.start, order=Order.METRICS)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch, order=Order.METRICS)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update, order=Order.METRICS)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.complete, order=Order.METRICS)
        engine.declare_metrics(self.names)

    @property
    def same_on_ranks(self) -> dict[str, str]:
        """See `leyden.engine.AlikeOnRanks`."""
        return {name: type(metric).__name__ for name, metric in sorted(self.metrics.items())}

    def names(self) -> list[str]:
        """The names that will appear in `state.metrics`."""
        return [each for name, metric in self.metrics.items() for each in metric.names(name)]

    def add(self, name: str, metric: Metric, others: Sequence[MetricGroup] = ()) -> None:
        """Raises ValueError if the name is taken, or if one of the engine's other groups measures with the metric;
        TypeError if the name is not a string.
        """
        if not isinstance(name, str) or not name:
            kind = type(metric).__name__
            call = f'{kind}(...).attach(engine, "{_snake(kind)}")'
            raise TypeError(f"a metric is attached under a name, but got {name!r}; write {call}")
        names = [each for group in (self, *others) for each in group.names()]
        if taken := sorted(set(metric.names(name)).intersection(names)):
            cure = f"attach this {metric.kind} under another name"
            if taken[0] != name and not metric.items_under_name:
                cure = f"that is an item of this {metric.kind}'s value too; give it other keys (a collection a prefix=)"
            raise ValueError(
                f'the engine has a metric "{taken[0]}" already, beside: {", ".join(sorted(names))}; '
                f"{cure}, or detach() the other first"
            )
        if name in metric.names(name)[1:]:
            raise ValueError(
                f'the value of this {metric.kind} is a mapping with an item "{name}", which would take the place of '
                "the mapping itself; attach it under another name"
            )
        for source in _all_of(metric):
            if any(source in group.sources() for group in others):
                raise ValueError(
                    f"this {source.kind} measures this engine with another usage already, and would be reset "
                    "at the times of both; give each usage a metric of its own"
                )
        self._check_private(name, metric)
        for source in _all_of(metric):
            source.check()
        for source in _all_of(metric):
            source.owners.check_claim(self, source, trains=self.trains)
        for source in _all_of(metric):
            source.owners.claim(self, trains=self.trains)
        self.metrics[name] = metric
        self._arrange()

    def _check_private(self, name: str, metric: Metric) -> None:
        metrics = (*self.metrics.values(), metric)
        shared = {source for each in metrics for source in each.sources()}
        for each in metrics:
            if spoilt := shared.intersection(each.private()):
                raise ValueError(
                    f"{type(each).__name__} resets its {type(spoilt.pop()).__name__} at each iteration, but that one "
                    f'is also measured for itself on this engine (found when attaching "{name}"); give each its own'
                )

    def sources(self) -> set[Metric]:
        """All metrics with states that it updates or resets."""
        return {source for metric in self.metrics.values() for source in _all_of(metric)}

    def remove(self, engine: Engine[Any, Any], metric: Metric) -> None:
        """Forgets a metric, under all its names; the values that are there stay as they are."""
        for name in [name for name, each in self.metrics.items() if each is metric]:
            self._leave(engine, name)
        self.metrics = {name: each for name, each in self.metrics.items() if each is not metric}
        kept = {source for each in self.metrics.values() for source in _all_of(each)}
        for source in _all_of(metric):
            if source not in kept:
                source.owners.release(self)
        self._arrange()

    def _leave(self, engine: Engine[Any, Any], name: str) -> None:
        """The name, and those of its items, are free for others."""
        for key in self._release(name):
            if key in engine.state.metrics:
                engine.state.metrics.settle(key)

    def _release(self, name: str) -> set[str]:
        """The names that the metric has in the state. Those that its value told are no longer its own."""
        return {*self.metrics[name].names(name), *self._items.pop(name, ())}

    def _arrange(self) -> None:
        """Finds the metrics that have states, each once."""
        self._sources = {}
        for name, metric in self.metrics.items():
            for position, source in enumerate(metric.sources()):
                saved_as = name if source is metric else f"{name}[{position}]"
                self._sources.setdefault(source, saved_as)
        self._updated = tuple(self._sources)
        self._live = tuple(_Live(name, metric) for name, metric in self.metrics.items() if metric.per_iteration)
        for source, saved_as in self._sources.items():
            if saved_as in self._waiting:
                states, shared_out = self._waiting.pop(saved_as)
                if shared_out:
                    source.load_state_dicts(states, first=bool(states))
                else:
                    source.load_state_dict(states[0])

    # -- events --------------------------------------------------------------------------------------------------------

    def start(self, engine: Engine[Any, Any]) -> None:
        self._in_epoch = engine.cursor.epoch_open
        if self._in_epoch:
            self._check_use()
        if engine.state.iteration == 0:
            self._reset(self._updated)
        self._even_out()

    def _even_out(self) -> None:
        """Where the number of ranks has changed: what they can't divide among them, they average."""
        averages = [metric for metric in self._updated if isinstance(metric, EvenedOut)] if self._uneven else []
        self._uneven = False
        for metric, whole in zip(averages, reduced_states(averages) if averages else (), strict=True):
            metric.even_out(whole)

    def start_epoch(self) -> None:
        self._in_epoch = True
        self._reset(tuple(metric for metric in self._updated if metric.epoch_bound))

    def update(self, engine: Engine[Any, Any]) -> None:
        state = engine.state
        output = state.output
        for metric in self._updated:
            metric.observe(output)
        for live in self._live:
            if live.metric.value is not live.shown:
                live.shown = state.metrics[live.name] = live.metric.value

    def complete(self, engine: Engine[Any, Any]) -> None:
        """Computes every metric over all ranks and writes the values into the state."""
        self._in_epoch = False
        self._check_use()
        self._write(engine)
        for live in self._live:
            live.shown = None

    def _write(self, engine: Engine[Any, Any]) -> None:
        values = self._values(engine)
        for name, metric in self.metrics.items():
            if any(source not in values for source in metric.sources()):
                self._leave_without(engine, name)
                continue
            engine.state.metrics[name] = value = plain(metric.result(values))
            if value is None:
                self._leave_without(engine, name)
                self._tell(engine, metric, name, f"what computes this {metric.kind} returns None")
            if isinstance(value, Mapping):
                self._write_items(engine, name, value)

    def _leave_without(self, engine: Engine[Any, Any], name: str) -> None:
        """Removes the value of an earlier epoch, so that it is not mistaken for one of this epoch."""
        for key in self._release(name):
            engine.state.metrics.pop(key, None)

    def _values(self, engine: Engine[Any, Any]) -> dict[Metric, Any]:
        """The values of those metrics that have one, over all ranks."""
        values = computed(self._updated)
        for metric, value in list(values.items()):
            if isinstance(value, NotComputableError):
                self._tell(engine, metric, self._sources[metric], value)
                del values[metric]
        return values

    def _tell(self, engine: Engine[Any, Any], metric: Metric, name: str, why: object) -> None:
        """Warns once why there is no value, unless the epoch had no batch."""
        if dist.rank() == 0 and any(each.updated() for each in metric.sources()) and name not in self._told:
            self._told.add(name)
            warnings.warn(f'no value of "{name}" for epoch {engine.state.epoch}: {why}', stacklevel=2)

    def _check_use(self) -> None:
        for metric in self._updated:
            metric.owners.check(self, metric)

    def _write_items(self, engine: Engine[Any, Any], name: str, value: Mapping[Any, Any]) -> None:
        items = {self.metrics[name].item_name(name, key): item for key, item in value.items() if isinstance(key, str)}
        others = {item: other for other, names in self._items.items() if other != name for item in names}
        others |= {other: other for other in self.metrics}
        if taken := sorted(items.keys() & others.keys()):
            raise ValueError(
                f'the value of the metric "{name}" has an item "{taken[0]}", which is already a value of the metric '
                f'"{others[taken[0]]}"; attach one of them under another name, or with other keys'
            )
        engine.state.metrics.update(items)
        self._items[name] = list(items)

    def _reset(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            metric.owners.use(self)
            metric.reset()

    # -- state ---------------------------------------------------------------------------------------------------------

    def rank_state_dict(self) -> dict[str, Any]:
        """The states of this rank, by the names of the metrics: of all within an epoch, else of those that live longer
        than one.
        """
        return {
            saved_as: metric.state_dict()
            for metric, saved_as in self._sources.items()
            if self._counts_on() or metric.keeps_between_epochs()
        }

    def _counts_on(self) -> bool:
        """What has been counted so far is needed by a run that goes on."""
        return self._in_epoch

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Loads such states; the states of metrics that are not attached yet are kept until they are."""
        self._reset(self._updated)
        same = len(states) == dist.data_size()
        saved = states[dist.data_rank() :: dist.data_size()]
        # Also of the first, which every rank has: one without a share of the others' has the same metrics.
        names = dict.fromkeys(name for state in (*saved, *([] if same else states[:1])) for name in state)
        self._waiting = {name: ([state[name] for state in saved if name in state], not same) for name in names}
        self._uneven = not same
        self._in_epoch = bool(names)
        self._arrange()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state from a checkpoint of schema 1, which holds rank 0's state only."""
        self._in_epoch = state_dict["in_epoch"]
        self._reset(self._updated)
        if state_dict["rank"] != dist.data_rank():
            # Taken over, the part of another rank would count twice, and this rank's not at all.
            if state_dict["sources"]:
                warnings.warn(
                    f"rank {dist.data_rank()} was given the metric states of rank {state_dict['rank']}, and begins "
                    "with empty ones: what this rank saw in the epoch that goes on is missing from its metrics",
                    stacklevel=2,
                )
            return
        self._waiting = {name: ([state], False) for name, state in state_dict["sources"].items()}
        self._arrange()


def _all_of(metric: Metric) -> tuple[Metric, ...]:
    """All metrics with states that this one uses, including those it resets itself."""
    return tuple(dict.fromkeys((*metric.sources(), *metric.private())))


def _snake(name: str) -> str:
    return "".join("_" * (i > 0 and c.isupper()) + c.lower() for i, c in enumerate(name))
