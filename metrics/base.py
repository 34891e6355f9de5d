"""The base of all metrics: declared states, an update that never waits for the device, one value at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.engine.values import detached, map_tensors
from leyden.metrics.arithmetic import Arithmetic
from leyden.metrics.errors import require_samples
from leyden.metrics.group import MetricGroup
from leyden.metrics.outputs import device_of, items_of, wide
from leyden.metrics.owners import Owners
from leyden.metrics.saved_states import all_parts, check_names, merged, saved, split_carried
from leyden.metrics.states import Declaration, StateReduction, StateValue, as_tensor, moved
from leyden.metrics.surrounding import beginning, checked, prepared
from leyden.metrics.usage import EPOCH_WISE, MetricUsage, usage_of
from leyden.metrics.usage_groups import Usage, add_to_group, remove_from_groups

OutputTransform = Callable[[Any], Any]
Device: TypeAlias = str | torch.device | int | None
"""Where a metric's states lie; None: where the data are, so that no update waits."""


class Metric(Arithmetic):
    """Something measured over an epoch. A metric of one's own declares states, updates them, computes a value:

        class LargestError(Metric):
            worst: torch.Tensor

            def __init__(self, output_transform=None):
                super().__init__(output_transform)
                self.add_state("worst", torch.tensor(0.0), "max")

            def update(self, output):
                y_pred, y = output
                self.worst = torch.maximum(self.worst, (y_pred - y).abs().max())

            def compute(self):
                return self.worst

    `output_transform` makes of an engine's output what `update` takes: for most metrics (y_pred, y), or a mapping with
    these keys. States lie on the device of the data, or on `device`. An update does not read them (no `.item()`), so no
    step waits. `skip_unrolling` is the attribute of that name.

    On an engine, `state.metrics[name]` gets the value over all ranks at the end of each epoch. The metric itself
    keeps what its own rank saw: `compute()` outside an engine is this rank's value. Under autocast and of a model in 16
    bits too, updates compute in float32 at least.
    """

    required_output_keys: tuple[str, ...] | None = ("y_pred", "y")
    """What is taken, in this order, from an output that is a mapping; None: `update` gets the mapping itself."""
    skip_unrolling = False
    """False: an output of sequences, ([y_pred_a, y_pred_b], [y_a, y_b]), is a batch of each pair in turn."""
    epoch_bound = True
    """True for a metric that is reset at the start of each epoch of its engine."""
    per_iteration = False
    """True for a metric whose `value` tensor is to be seen in `state.metrics` at every iteration."""
    widens = True
    """What `update` gets is float32 at least, however low the precision of the model; False where that changes nothing.
    """
    on_rank_zero = False
    """True: what is gathered ("cat", "none") goes to rank 0 of those that see different data, which alone calls
    `compute`; the others get its value. For what is too large for each of them.
    """
    later_states: tuple[str, ...] = ()
    """States that older checkpoints do not have; they begin from their defaults."""
    result_keys: tuple[str, ...] = ()
    """The keys of a value that is a mapping, where they are known before the run; others can then watch them."""
    items_under_name = False
    """True: the items of a value that is a mapping stand in `state.metrics` as "name/key", for keys that say little
    alone ("max"); else under their keys.
    """
    number_instead = ""
    """What to attach where a single number is watched, if the value is known to be none."""

    _updates: int

    def __init_subclass__(cls, **options: Any) -> None:
        """Surrounds `reset`, `update` and `compute`, so that a metric of one's own is plain functions of its states."""
        super().__init_subclass__(**options)
        for name, surround in (("reset", beginning), ("update", prepared), ("compute", checked)):
            if name in vars(cls):
                setattr(cls, name, surround(vars(cls)[name]))

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        if output_transform is not None and not callable(output_transform):
            raise TypeError(
                f"the output_transform of {type(self).__name__} must be a function, but is {output_transform!r}"
            )
        self.output_transform = output_transform
        self._wish = None if device is None else torch.device(device)
        if skip_unrolling is not None:
            self.skip_unrolling = skip_unrolling
        self.declarations: dict[str, Declaration] = {}
        """The states by name."""
        self._defaults: dict[str, torch.Tensor] = {}
        self._settled = False  # the states are known to be where the data are
        self._begun = type(self).reset is Metric.reset  # its reset has nothing to begin but what is declared
        self.owners = Owners()
        self.carried: list[dict[str, StateValue]] = []
        """States that ranks of an earlier run left to this one, where they can't be merged with its own."""
        self.add_state("_updates", 0, "sum")

    def add_state(self, name: str, default: torch.Tensor | int, reduction: StateReduction) -> None:
        """Declares a state, from then on the attribute `name`; `reset` sets it to a copy of `default`.

        `reduction` makes one value of those of the ranks: "sum" (the default must be zeros), "max", "min", "mean" (each
        rank's weighs as many as its updates), "cat", "none", or a function. Under "cat" the attribute is a list that
        `update` appends to and `compute` reads as `torch.cat(self.name)`. Under "none" `compute` finds the values of
        the ranks that saw data stacked, (ranks, ...), and a function is given that; where one rank alone saw data,
        "none" leaves its value as it is. A default of shape (0,) under the others stands for a shape that only the data
        tell. A default that is an int is counted on the host (samples, say: shapes are known there). All ranks hold a
        state in the dtype of its default.

        Raises ValueError if the name is taken or the default does not fit the reduction.
        """
        if name in vars(self) or hasattr(type(self), name) or not name.isidentifier():
            raise ValueError(
                f"{type(self).__name__} can't have a state {name!r}: the name is taken, or not an identifier"
            )
        declaration = Declaration.of(default, reduction)
        self.declarations[name] = declaration
        self._defaults[name] = declaration.default
        setattr(self, name, declaration.begin(declaration.default))

    # -- what a metric does --------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forgets all batches seen so far. A metric that overrides this calls `super().reset()`."""
        for name, declaration in self.declarations.items():
            setattr(self, name, declaration.begin(self._defaults[name]))
        self._settled = False
        self.carried = []

    @abstractmethod
    def update(self, output: Any) -> None:
        """Adds one output to the states."""

    @abstractmethod
    def compute(self) -> Any:
        """The value: a number, a tensor or a mapping of them. Raises NotComputableError before any update."""

    def verify(self) -> None:
        """Raises what updates noticed without waiting for the device; called before `compute`, with all states."""

    # -- on an engine --------------------------------------------------------------------------------------------------

    def attach(self, engine: Engine[Any, Any], name: str = "", usage: Usage = None) -> None:
        """Measures the engine's output, into `engine.state.metrics[name]`. `usage` says when it is reset and computed:
        by default each epoch; `BatchWise()`, `RunningWindow(100)`, an event such as
        `Events.ITERATION_COMPLETED(every=100)`, a `MetricUsage`, or one of Ignite's names.

        Raises ValueError if the engine has a metric of that name, if this one measures another engine (two that only
        evaluate may share it) or has another usage on this one; TypeError if it is given no name.
        """
        add_to_group(engine, name, self, EPOCH_WISE if usage is None else self.take_usage(usage_of(usage)))

    def check(self) -> None:
        """Raises ValueError if it can't be measured here; called as it is attached, by itself or in a derived one."""

    def take_usage(self, usage: MetricUsage) -> MetricUsage:
        """The usage for the group that the metric comes into. Raises ValueError for one that the metric can't have."""
        return usage

    def detach(self, engine: Engine[Any, Any]) -> None:
        """Stops measuring that engine. Raises ValueError if the metric is not attached to it."""
        remove_from_groups(engine, self)

    def is_attached(self, engine: Engine[Any, Any]) -> bool:
        """Whether it is attached to that engine itself, rather than as a part of a derived metric."""
        return any(self in group.metrics.values() for group in MetricGroup.all_of(engine))

    def observe(self, output: Any) -> None:
        """Updates from an engine's output, through the output_transform."""
        if self.output_transform is not None:
            output = self.output_transform(output)
        several = not self.skip_unrolling and isinstance(output, tuple | list) and len(output) > 0
        unrolled = several and all(isinstance(part, tuple | list) for part in output)
        for each in zip(*output, strict=True) if unrolled else (output,):
            self.update(each)

    # -- for the group that measures an engine -------------------------------------------------------------------------

    def derive(self, function: Callable[..., Any], *operands: Any, **named: Any) -> Metric:
        from leyden.metrics.derived import Derived

        return Derived(function, *operands, **named)

    def sources(self) -> tuple[Metric, ...]:
        """The metrics with states that this one's value comes from: itself, or a derived metric's operands."""
        return (self,)

    def updated(self) -> bool:
        """Whether it has seen any batch since its reset."""
        return any(states["_updates"] for states in self.contributions())

    def keeps_between_epochs(self) -> bool:
        """Whether there is something to save where no epoch is open."""
        return not self.epoch_bound

    def states(self) -> dict[str, StateValue]:
        """The states of this rank as they are, by name."""
        return {name: getattr(self, name) for name in self.declarations}

    def contributions(self) -> list[dict[str, StateValue]]:
        """What this rank gives to the value over all ranks: its own states, and those that it carries."""
        return [self.states(), *self.carried]

    def updates_of(self, name: str, states: Mapping[str, Any]) -> int:
        """How many updates the state of that name has seen, where a rank has these states."""
        return int(states["_updates"])

    def on_host(self, state: str) -> bool:
        """Whether the state is wanted in the host's memory, wherever the ranks compute."""
        return self._wish is not None and self._wish.type == "cpu"

    def describe_state(self, state: str) -> str:
        """A state for an error message."""
        return f"{self.kind}.{state}"

    @property
    def kind(self) -> str:
        """The class of what it measures with, for messages."""
        return type(self).__name__

    def private(self) -> tuple[Metric, ...]:
        """Metrics that this one resets for itself, so that nobody else can use them on the same engine."""
        return ()

    def item_name(self, name: str, key: str) -> str:
        """Where an item of the value stands in `state.metrics`."""
        return f"{name}/{key}" if self.items_under_name else key

    def names(self, name: str) -> list[str]:
        """The names of the value and of its items, as far as they are known before the run."""
        return [name, *(self.item_name(name, key) for key in self.result_keys)]

    def result(self, values: Mapping[Metric, Any]) -> Any:
        """The value, from those of its sources."""
        return values[self]

    @contextmanager
    def holding(self, states: Mapping[str, StateValue]) -> Iterator[None]:
        """Within this context `compute` sees other states, those of all ranks; the metric's own ones are put back
        afterwards.
        """
        own = self.states()
        self.put(states)
        try:
            yield
        finally:
            self.put(own)

    def put(self, states: Mapping[str, StateValue]) -> None:
        """Sets these states to these values."""
        vars(self).update(states)

    def state_dict(self) -> dict[str, Any]:
        """A copy of this rank's states, in tensors and numbers."""
        return saved(self.contributions(), self.to_saved)

    def to_saved(self, name: str, value: StateValue) -> Any:
        """A copy of a state as it is saved; those that it makes are restored by `from_saved`."""
        return value if self.declarations[name].counter else as_tensor(value).clone()

    def from_saved(self, name: str, value: Any) -> StateValue:
        """The state of which that was saved."""
        if self.declarations[name].counter:
            return int(value)
        tensor = torch.as_tensor(value).clone()
        return [tensor] if self.declarations[name].listed else tensor

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads such states. Raises ValueError if they are another metric's."""
        self._begun = True
        own, carried = split_carried(state_dict)
        check_names([own, *carried], self.declarations, self.later_states, self.kind)
        self.put(self._restored(own))
        self.carried = [self._restored(states) for states in carried]
        self._settled = False

    def _restored(self, states: Mapping[str, Any]) -> dict[str, StateValue]:
        """Saved states in the form that they have here; those that are missing begin from their defaults."""
        return {
            name: self.from_saved(name, states.get(name, declaration.default))
            for name, declaration in self.declarations.items()
        }

    def load_state_dicts(self, states: Sequence[Mapping[str, torch.Tensor | int]], *, first: bool) -> None:
        """Loads the states of several ranks where the number of ranks has changed: one rank takes each of them. That is
        this one if `first`; else it starts empty. So the value over all ranks is unchanged.
        """
        self.reset()
        if first and not all(declaration.mergeable for declaration in self.declarations.values()):
            self._begun = True
            self.carried = [self._restored(part) for part in all_parts(states)]
        elif first:
            self.load_state_dict(merged(states, self.declarations))

    def __getstate__(self) -> dict[str, Any]:
        """A copy measures no engine."""
        return {**vars(self), "owners": Owners()}

    @property
    def _device(self) -> torch.device:
        """Where a metric written for Ignite puts its own tensors: the device that was wished for, or the process's."""
        return dist.device() if self._wish is None else self._wish

    @_device.setter
    def _device(self, device: Device) -> None:
        self._wish = None if device is None else torch.device(device)

    # -- around update and compute -------------------------------------------------------------------------------------

    def _pick(self, output: Any) -> Any:
        keys = self.required_output_keys
        if keys is not None and isinstance(output, Mapping):
            output = items_of(output, keys, type(self).__name__)
        return wide(output) if self.widens else detached(output)

    def _settle(self, output: Any) -> None:
        """Moves the states to the device of the data, or to the device that was asked for."""
        if not self._begun:
            self._begun = True
            self.reset()  # one that is written for Ignite makes its tensors there
        device = device_of(output) if self._wish is None else self._wish
        if device is None:
            return
        self._settled = True
        for name, declaration in self.declarations.items():
            if declaration.counter:
                continue
            self._defaults[name] = moved(self._defaults[name], device)
            setattr(self, name, map_tensors(getattr(self, name), lambda tensor: moved(tensor, device)))

    def _check_updated(self) -> None:
        require_samples(self, self._updates)
