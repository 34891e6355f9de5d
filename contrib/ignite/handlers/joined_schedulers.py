"""Ignite's schedulers that are made of others: side by side, one after the other, and a warm-up before one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from leyden.contrib.ignite.handlers.single_schedulers import LRScheduler, ParamScheduler, PiecewiseLinear, Values
from leyden.engine import Engine


class ParamGroupScheduler:
    """Calls one scheduler for each group of parameters."""

    def __init__(
        self, schedulers: Sequence[ParamScheduler], names: Sequence[str] | None = None, save_history: bool = False
    ) -> None:
        if not schedulers or not all(isinstance(each, ParamScheduler) for each in schedulers):
            raise TypeError(f"ParamGroupScheduler takes a list of schedulers, but got {schedulers!r}")
        self.schedulers = list(schedulers)
        self.names = [each.param_name for each in schedulers] if names is None else list(names)
        if len(self.names) != len(self.schedulers):
            raise ValueError(f"{len(self.schedulers)} schedulers need as many names, but got {len(self.names)}")
        for each in self.schedulers:
            each.save_history = save_history
        self.optimizer = self.schedulers[0].optimizer
        self.param_name = self.schedulers[0].param_name

    def __call__(self, engine: Engine[Any, Any] | None, name: str | None = None) -> None:
        for each, own_name in zip(self.schedulers, self.names, strict=True):
            each(engine, own_name)

    @property
    def optimizer_param_groups(self) -> list[dict[str, Any]]:
        return [group for each in self.schedulers for group in each.optimizer_param_groups]

    def get_param(self) -> list[Any]:
        return [each.get_param() for each in self.schedulers]

    def state_dict(self) -> dict[str, Any]:
        return {
            "schedulers": [(name, each.state_dict()) for name, each in zip(self.names, self.schedulers, strict=True)]
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        saved = state_dict["schedulers"]
        if [name for name, _ in saved] != self.names:
            raise ValueError(
                f"the state is of schedulers for {[name for name, _ in saved]}, these are for {self.names}"
            )
        for each, (_, state) in zip(self.schedulers, saved, strict=True):
            each.load_state_dict(state)


class ConcatScheduler(ParamScheduler):
    """One scheduler after the other; each but the last for as many calls as `durations` says."""

    _state_names = ("event_index", "_place", "_left")

    def __init__(
        self,
        schedulers: Sequence[ParamScheduler | ParamGroupScheduler],
        durations: Sequence[int],
        save_history: bool = False,
    ) -> None:
        if len(schedulers) < 2 or len(durations) != len(schedulers) - 1:
            raise ValueError(
                "ConcatScheduler takes two schedulers or more, and a duration for each but the last, but got "
                f"{len(schedulers)} and {len(durations)}"
            )
        if len({id(each.optimizer) for each in schedulers}) > 1 or len({each.param_name for each in schedulers}) > 1:
            raise ValueError("ConcatScheduler needs schedulers of the same number of the same optimizer")
        super().__init__(schedulers[0].optimizer, schedulers[0].param_name)
        self.schedulers = list(schedulers)
        self.durations = list(durations)
        self._place = 0
        self._left = self.durations[0]
        for scheduler in schedulers:
            for each in scheduler.schedulers if isinstance(scheduler, ParamGroupScheduler) else [scheduler]:
                each.save_history = save_history

    @property
    def optimizer_param_groups(self) -> list[dict[str, Any]]:
        return self.schedulers[self._place].optimizer_param_groups

    def __call__(self, engine: Engine[Any, Any] | None, name: str | None = None) -> None:
        if self._left == 0 and self._place < len(self.durations):
            self._place += 1
            self._left = self.durations[self._place] if self._place < len(self.durations) else 0
        self.schedulers[self._place](engine, name)
        self.event_index += 1
        if self._place < len(self.durations):
            self._left -= 1

    def get_param(self) -> Values:
        return self.schedulers[self._place].get_param()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"schedulers": [each.state_dict() for each in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for each, state in zip(self.schedulers, state_dict["schedulers"], strict=True):
            each.load_state_dict(state)

    @classmethod
    def simulate_values(cls, num_events: int, schedulers: Any = None, **scheduler_kwargs: Any) -> list[list[Any]]:
        """The values of the first calls, [call, value of each group ...], on copies of those schedulers."""
        return cls(copy.deepcopy(schedulers), **scheduler_kwargs).next_values(num_events)


def create_lr_scheduler_with_warmup(
    lr_scheduler: ParamScheduler | torch.optim.lr_scheduler.LRScheduler,
    warmup_start_value: float,
    warmup_duration: int,
    warmup_end_value: float | None = None,
    save_history: bool = False,
    output_simulated_values: list[Any] | None = None,
) -> ConcatScheduler:
    """A line to `warmup_end_value` (by default the group's learning rate) within `warmup_duration` calls, then the
    scheduler. A list given as `output_simulated_values` is filled with what its length of calls would set.
    """
    if isinstance(warmup_duration, bool) or not isinstance(warmup_duration, int) or warmup_duration < 2:
        raise ValueError(f"a warm-up takes at least 2 calls, but got warmup_duration={warmup_duration!r}")
    if isinstance(lr_scheduler, torch.optim.lr_scheduler.LRScheduler):
        then: ParamScheduler = LRScheduler(lr_scheduler, use_legacy=True)
        begins_with: Any = None
    else:
        then, begins_with = lr_scheduler, lr_scheduler.get_param()
    last = warmup_duration - 1
    lines: list[ParamScheduler] = []
    for index, group in enumerate(then.optimizer.param_groups):
        base = group["lr"]
        end = base if warmup_end_value is None else warmup_end_value
        points = [(0, warmup_start_value), (last, end)]
        if begins_with is None and base != end:
            points.append((warmup_duration, base))
        elif begins_with == end:  # the scheduler sets that value itself, at its first call
            points[-1:] = [(last - 1, end - (end - warmup_start_value) / last)] if warmup_duration > 2 else []
        lines.append(PiecewiseLinear(then.optimizer, "lr", points, param_group_index=index))
    schedulers: list[ParamScheduler | ParamGroupScheduler] = [ParamGroupScheduler(lines), then]
    durations = [points[-1][0] + 1]
    if output_simulated_values is not None:
        simulated = ConcatScheduler.simulate_values(len(output_simulated_values), schedulers, durations=durations)
        output_simulated_values[:] = simulated
    return ConcatScheduler(schedulers, durations, save_history)
