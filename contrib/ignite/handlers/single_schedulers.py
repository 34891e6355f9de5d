"""Ignite's schedulers: each call sets a number of the optimizer's groups, and counts.

`engine.add_event_handler(Events.ITERATION_STARTED, scheduler)`. The curves are leyden's shapes; `Schedule` and
`ParamSchedule` of leyden.handlers do the same from the run's own counters, without a state.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from leyden.engine import Engine, Events
from leyden.handlers.training import Cosine, Linear, Piecewise

Values = float | list[float]


class ParamScheduler:
    """Base: `get_param()` gives what the call number `event_index` sets, one value or one for each group.

    `param_group_index`: the one group it is for, by default all. `save_history`: keeps the values in
    `engine.state.param_history[name]`.
    """

    _state_names: tuple[str, ...] = ("event_index",)

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        param_name: str,
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"{type(self).__name__} works on an optimizer with param_groups, but got {optimizer!r}")
        self.optimizer = optimizer
        self.param_name = param_name
        self.save_history = save_history
        self.param_group_index = param_group_index
        self.event_index = 0

    @property
    def optimizer_param_groups(self) -> list[dict[str, Any]]:
        """The groups that are set."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        return groups if self.param_group_index is None else [groups[self.param_group_index]]

    def get_param(self) -> Values:
        """The value of the next call."""
        raise NotImplementedError(f"{type(self).__name__} needs get_param()")

    def attach(self, engine: Engine[Any, Any], event: Any = Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine[Any, Any] | None, name: str | None = None) -> None:
        groups = self.optimizer_param_groups
        value = self.get_param()
        values = value if isinstance(value, list) else [value] * len(groups)
        if len(values) != len(groups):
            raise ValueError(f"{type(self).__name__} has {len(values)} values for {len(groups)} groups")
        for group, each in zip(groups, values, strict=True):
            group[self.param_name] = each
        self._note(engine, name or self.param_name)
        self.event_index += 1

    def _note(self, engine: Engine[Any, Any] | None, name: str) -> None:
        if self.save_history and engine is not None:
            history = vars(engine.state).setdefault("param_history", {})
            history.setdefault(name, []).append([group[self.param_name] for group in self.optimizer_param_groups])

    def state_dict(self) -> dict[str, Any]:
        return {name: copy.copy(getattr(self, name)) for name in self._state_names}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for name in self._state_names:
            setattr(self, name, state_dict[name])

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """The pairs [call, value] of the first calls of a scheduler with these arguments, without an optimizer."""
        given = {key: each for key, each in scheduler_kwargs.items() if key not in ("optimizer", "save_history")}
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        return cls(optimizer, **given).next_values(num_events)

    def next_values(self, calls: int) -> list[list[Any]]:
        """Makes that many calls, and gives what each has set: [call, value of each group ...]."""
        values: list[list[Any]] = []
        for index in range(calls):
            self(None)
            values.append([index, *(group[self.param_name] for group in self.optimizer_param_groups)])
        return values


class CyclicalScheduler(ParamScheduler):
    """Base of curves from `start_value` to `end_value` within `cycle_size` calls, again and again.

    After each cycle its size is multiplied by `cycle_mult`, the two values by theirs. `warmup_duration`: calls on a
    line from the end value back to the next start value.
    """

    _state_names = (
        "event_index",
        "cycle",
        "start_value",
        "end_value",
        "cycle_size",
        "warmup_duration",
    )
    _curve: type[Cosine] | type[Linear]

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        param_name: str,
        start_value: float,
        end_value: float,
        cycle_size: int,
        cycle_mult: float = 1.0,
        start_value_mult: float = 1.0,
        end_value_mult: float = 1.0,
        warmup_duration: int = 0,
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        super().__init__(optimizer, param_name, save_history, param_group_index)
        if cycle_size < 2:
            raise ValueError(f"a cycle has at least 2 calls, but got cycle_size={cycle_size}")
        self.start_value = start_value
        self.end_value = end_value
        self.cycle_size = cycle_size
        self.cycle_mult = cycle_mult
        self.start_value_mult = start_value_mult
        self.end_value_mult = end_value_mult
        self.warmup_duration = warmup_duration
        self.cycle = 0

    def __call__(self, engine: Engine[Any, Any] | None, name: str | None = None) -> None:
        if self.event_index == self.cycle_size:
            self.start_value *= self.start_value_mult
        if self.event_index == self.cycle_size + self.warmup_duration:
            self.event_index = 0
            self.cycle += 1
            self.cycle_size = int(self.cycle_size * self.cycle_mult)
            self.warmup_duration = int(self.warmup_duration * self.cycle_mult)
            self.end_value *= self.end_value_mult
        super().__call__(engine, name)

    def get_param(self) -> float:
        back = self.event_index - self.cycle_size
        if back > 0:
            return Linear(self.end_value, self.start_value, self.warmup_duration)(back)
        return self.curve()

    def curve(self) -> float:
        """The value within the cycle."""
        return self._curve(self.start_value, self.end_value, self.cycle_size)(self.event_index)


class LinearCyclicalScheduler(CyclicalScheduler):
    """A line from the start value to the end value and back, or with `monotonic` only there."""

    _curve = Linear

    def __init__(self, *args: Any, monotonic: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.monotonic = monotonic
        if self.warmup_duration > 0 and not monotonic:
            raise ValueError(
                "warmup_duration leads back to the start value, where the curve is already without monotonic=True"
            )

    def curve(self) -> float:
        if self.monotonic:
            return super().curve()
        half = self.cycle_size / 2
        return Linear(self.start_value, self.end_value, half)(half - abs(self.event_index - half))


class CosineAnnealingScheduler(CyclicalScheduler):
    """Half a cosine from the start value to the end value."""

    _curve = Cosine


class PiecewiseLinear(ParamScheduler):
    """Lines between the points `milestones_values`, pairs (call, value)."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        param_name: str,
        milestones_values: Sequence[tuple[int, float]],
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        super().__init__(optimizer, param_name, save_history, param_group_index)
        self._shape = Piecewise(milestones_values)

    def get_param(self) -> float:
        return self._shape(self.event_index)


class LRScheduler(ParamScheduler):
    """A scheduler of torch.optim.lr_scheduler: the first call sets the rates that it begins with, each other one steps.

    Wrapped in another scheduler (`create_lr_scheduler_with_warmup`) it steps at its first call too.
    """

    def __init__(
        self, lr_scheduler: torch.optim.lr_scheduler.LRScheduler, save_history: bool = False, use_legacy: bool = False
    ) -> None:
        if not isinstance(lr_scheduler, torch.optim.lr_scheduler.LRScheduler):
            raise TypeError(f"LRScheduler takes a scheduler of torch.optim.lr_scheduler, but got {lr_scheduler!r}")
        super().__init__(lr_scheduler.optimizer, "lr", save_history)
        self.lr_scheduler = lr_scheduler
        self.steps_at_once = use_legacy
        self._first = [float(rate) for rate in lr_scheduler.get_last_lr()]

    def __call__(self, engine: Engine[Any, Any] | None, name: str | None = None) -> None:
        if self.steps_at_once or self.event_index > 0:
            self.lr_scheduler.step()
        else:  # a warm-up before it may have left other ones
            for group, rate in zip(self.optimizer_param_groups, self._first, strict=True):
                group["lr"] = rate
        self._note(engine, name or self.param_name)
        self.event_index += 1

    def get_param(self) -> Values:
        begins = self.event_index == 0 and not self.steps_at_once
        rates = self._first if begins else [group["lr"] for group in self.optimizer_param_groups]
        return rates[0] if len(rates) == 1 else list(rates)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"lr_scheduler": copy.deepcopy(self.lr_scheduler.state_dict())}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.lr_scheduler.load_state_dict(copy.deepcopy(state_dict["lr_scheduler"]))

    @classmethod
    def simulate_values(cls, num_events: int, lr_scheduler: Any = None, **scheduler_kwargs: Any) -> list[list[Any]]:
        """The rates of the first calls, [call, rate of each group ...], on a copy of that scheduler."""
        return cls(copy.deepcopy(lr_scheduler), **scheduler_kwargs).next_values(num_events)
