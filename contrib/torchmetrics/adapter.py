"""A torchmetrics metric as one of leyden's: its states join the one reduction of its engine."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from leyden.contrib.torchmetrics import internals
from leyden.contrib.torchmetrics.arguments import Arguments
from leyden.contrib.torchmetrics.nodes import (
    COUNTER,
    changed,
    declarations_of,
    memory_of,
    nodes_of,
    remember,
    state_name,
)
from leyden.contrib.torchmetrics.refused import refuse, refuse_hidden, refuse_on_ranks, refuse_trackers
from leyden.contrib.torchmetrics.result_names import result_keys, say_little
from leyden.engine import Engine
from leyden.metrics import (
    Metric,
    OutputTransform,
    StateValue,
    all_parts,
    described,
    device_of,
)

_ADAPTER = "_leyden_adapter"
"""The attribute by which a torchmetrics object knows what measures with it."""
_MEMORY = "memory."
"""Before the names, in what is saved, of what is no state."""


def adapt(metric: Any, output_transform: OutputTransform | None = None) -> TorchMetric | None:
    """What measures with a torchmetrics object, None for anything else. Objects of torchmetrics exist only once it has
    been imported, so nothing is imported here.
    """
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is None:
        return None
    refuse_trackers(metric)
    if not isinstance(metric, torchmetrics.Metric | torchmetrics.MetricCollection):
        return None
    found: TorchMetric | None = vars(metric).get(_ADAPTER, _NOBODY).adapter
    if found is not None and found.metric is metric and found.given_transform is output_transform:
        return found
    made = TorchMetric(metric, output_transform)
    if found is None:  # so that one object is one metric, wherever it stands in an expression
        vars(metric)[_ADAPTER] = _MeasuredBy(made)
    return made


class TorchMetric(Metric):
    """Measures with a torchmetrics metric, collection or wrapper: `engine.attach_metric("f1", MulticlassF1Score(10))`
    makes one.

    Each output goes to its `update`, float32 at least: a tuple in its order, a mapping by the names of `update`
    ("preds", "target") or by "y_pred" and "y". At the end of an epoch the declared states of all metrics in it are
    reduced over the ranks, in the collectives of all other metrics of the engine; its own synchronisation is off, and
    so is `forward`. A mean weighs each rank by its updates, and ranks that saw no data are left out of means and of
    what is stacked. A function as `dist_reduce_fx` gets the stacked values, or one list of all. The object stays the
    user's: after an epoch its `compute()` gives the value over all ranks.

    Results become plain numbers, mappings of them, and tensors on the CPU (matrices, curves).

    Raises TypeError for another object, ValueError for one with a synchronisation of its own (`process_group`,
    `dist_sync_fn`), for a MetricTracker, for one that keeps others in a plain list or mapping, where a metric is a part
    of two that are attached, and for one that torchmetrics can't put together from as many ranks.
    """

    required_output_keys = None
    skip_unrolling = True

    def __init__(self, metric: Any, output_transform: OutputTransform | None = None) -> None:
        import torchmetrics

        if not isinstance(metric, torchmetrics.Metric | torchmetrics.MetricCollection):
            raise TypeError(f"TorchMetric takes a metric or collection of torchmetrics, but got {metric!r}")
        super().__init__(output_transform)
        self.metric = metric
        self.given_transform = output_transform
        self.result_keys = result_keys(metric)
        self.items_under_name = say_little(metric)
        self._nodes = nodes_of(metric)
        refuse_hidden(self._nodes.values())
        for node in self._nodes.values():
            refuse(node)
        self._synchronisation = {place: internals.synchronisation(node) for place, node in self._nodes.items()}
        self._synchronise_itself(False)
        for place, node in self._nodes.items():
            self.declarations |= declarations_of(place, node)
        self._arguments = Arguments(metric)
        self._memory = memory_of(self._nodes)  # as it was
        self._begun = True

    # -- measuring -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        self._check_parts()
        for node in self._nodes.values():
            refuse_on_ranks(node)
        self._synchronise_itself(False)
        for module in (self.metric, *self._nodes.values()):
            vars(module)[_ADAPTER] = _MeasuredBy(self)

    def detach(self, engine: Engine[Any, Any]) -> None:
        super().detach(engine)
        if not self.owners.attached():
            self._synchronise_itself(True)

    def _synchronise_itself(self, itself: bool) -> None:
        """Whether it synchronises as it was made to: not while it is measured here."""
        for place, node in self._nodes.items():
            internals.set_synchronisation(node, *(self._synchronisation[place] if itself else (False, False)))

    def reset(self) -> None:
        self.metric.reset()
        self.carried = []

    def update(self, output: Any) -> None:
        arguments, named = self._arguments.of(output)
        try:
            self.metric.update(*arguments, **named)
        except Exception as error:
            error.add_note(
                f"raised as {self.kind} was updated with {described(output)}; output_transform= makes what its update "
                "takes of an engine's output"
            )
            raise

    def compute(self) -> Any:
        return self.metric.compute()

    # -- states --------------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, StateValue]:
        found: dict[str, StateValue] = {"_updates": self._updates}
        for place, node in self._nodes.items():
            found[state_name(place, COUNTER)] = internals.updates(node)
            found |= {state_name(place, attribute): value for attribute, value in internals.values(node).items()}
        return found

    def updates_of(self, name: str, states: Mapping[str, Any]) -> int:
        place = name.rpartition(".")[0]
        counter = state_name(place, COUNTER)
        return int(states[counter if counter in states and name != "_updates" else "_updates"])

    def on_host(self, state: str) -> bool:
        node = self._nodes.get(state.rpartition(".")[0])
        return node is not None and bool(node.compute_on_cpu)

    def describe_state(self, state: str) -> str:
        place, _, attribute = state.rpartition(".")
        return f"{type(self._nodes.get(place, self.metric)).__name__}.{attribute}"

    @property
    def kind(self) -> str:
        return type(self.metric).__name__

    @contextmanager
    def holding(self, states: Mapping[str, StateValue]) -> Iterator[None]:
        for node in self._nodes.values():  # also where it is its own: a collection forgets less than it updates
            internals.forget_computed(node)
        if not states:  # its own
            yield
            return
        # A list that was joined is a tensor then, as after torchmetrics' own synchronisation.
        joined = {
            name: each[0] for name, each in states.items() if isinstance(each, list) and self._joins(name) and each
        }
        with super().holding({**states, **joined}):
            yield

    def _joins(self, state: str) -> bool:
        return self.declarations[state].reduction == "cat"

    def put(self, states: Mapping[str, StateValue]) -> None:
        if "_updates" in states:
            self._updates = int(states["_updates"])  # type: ignore[arg-type]
        for place, node in self._nodes.items():
            if (counter := state_name(place, COUNTER)) in states:
                internals.set_updates(node, states[counter])  # type: ignore[arg-type]
            for attribute in internals.values(node):
                if (name := state_name(place, attribute)) in states:
                    setattr(node, attribute, states[name])

    def state_dict(self) -> dict[str, Any]:
        memory = changed(memory_of(self._nodes), self._memory)
        return super().state_dict() | {_MEMORY + name: value for name, value in memory.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(_without_memory(state_dict))
        self._remember(state_dict)

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]], *, first: bool) -> None:
        """The `first` rank carries all of it: what can't be merged (the values of ranks, stacked) is kept apart."""
        self.reset()
        if states:
            self._remember(states[0])
        if first:
            parts = all_parts([_without_memory(state) for state in states])
            self.carried = [self._restored(part) for part in parts if part["_updates"]]

    def to_saved(self, name: str, value: StateValue) -> Any:
        """A copy; of a list whose values are joined anyway, joined."""
        if not isinstance(value, list):
            return value.detach().clone() if isinstance(value, torch.Tensor) else value
        copies = [each.detach().clone() if isinstance(each, torch.Tensor) else each for each in value]
        if not self._joins(name) or not copies:
            return copies
        return [torch.cat([each.reshape(1) if each.ndim == 0 else each for each in copies])]

    from_saved = to_saved

    def keeps_between_epochs(self) -> bool:
        return super().keeps_between_epochs() or bool(changed(memory_of(self._nodes), self._memory))

    def _remember(self, state_dict: Mapping[str, Any]) -> None:
        memory = {n.removeprefix(_MEMORY): value for n, value in state_dict.items() if n.startswith(_MEMORY)}
        remember(self._nodes, memory)

    def _settle(self, output: Any) -> None:
        device = device_of(output)
        if device is not None:
            self._settled = True
            self.metric.to(device)

    def _check_parts(self) -> None:
        """Raises ValueError if another that is attached measures with a part of this one."""
        for node in self._nodes.values():
            other = vars(node).get(_ADAPTER, _NOBODY).adapter
            if other is not None and other is not self and other.measures_with(node):
                raise ValueError(
                    f"this {type(node).__name__} is measured already, by itself or as a part of another metric, and "
                    "would be updated twice with each batch: give each attached metric its own, a .clone() of it"
                )

    def measures_with(self, node: Any) -> bool:
        """Whether it is attached, and the torchmetrics object is a part of it."""
        return any(each is node for each in self._nodes.values()) and self.owners.attached()


class _MeasuredBy:
    """What a torchmetrics object knows of its adapter; a copy of the object has none."""

    def __init__(self, adapter: TorchMetric | None = None) -> None:
        self._adapter = None if adapter is None else weakref.ref(adapter)

    def __reduce__(self) -> tuple[type[_MeasuredBy], tuple[()]]:
        return _MeasuredBy, ()

    @property
    def adapter(self) -> TorchMetric | None:
        return None if self._adapter is None else self._adapter()


_NOBODY = _MeasuredBy()


def _without_memory(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state_dict.items() if not name.startswith(_MEMORY)}
