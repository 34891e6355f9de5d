"""Schedulers of an update that has several optimizers: one for each, which step together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from leyden.distributed.compat import PARTS, parts_of_scheduler
from leyden.engine.step import optimizers_in
from leyden.handlers.training.torch_schedulers import Scheduler, make_rise


class SchedulerOfEach(Scheduler):
    """One scheduler for each of several optimizers, in their order; `optimizer` is all of them."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedulers: Sequence[Scheduler]) -> None:
        # Not torch's: what it would note and patch is the parts' own.
        self.optimizer = optimizer
        self._schedulers = list(schedulers)

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        return self._schedulers[0].last_epoch

    @property
    def total_iters(self) -> int:
        """Of warm-ups, which are equally long."""
        total: int = self._schedulers[0].total_iters  # type: ignore[attr-defined]
        return total

    def step(self, metrics: Any = None) -> None:
        for each in self._schedulers:
            if metrics is None:
                each.step()
            else:
                each.step(metrics)

    def get_last_lr(self) -> list[Any]:
        return [rate for each in self._schedulers for rate in each.get_last_lr()]

    def state_dict(self) -> dict[str, Any]:
        return {PARTS: [each.state_dict() for each in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for each, state in zip(self._schedulers, state_dict[PARTS], strict=True):
            each.load_state_dict(state)


def outermost_in(scheduler: Scheduler) -> list[Scheduler]:
    """The scheduler, or the one of each optimizer."""
    return parts_of_scheduler(scheduler) if isinstance(scheduler, SchedulerOfEach) else [scheduler]


def make_for(make: Any, optimizer: torch.optim.Optimizer, steps: int) -> Scheduler:
    """What the function of a Schedule makes of an optimizer, or of each of several. Raises TypeError for no scheduler
    of the one it is given.
    """
    made = []
    for each in optimizers_in(optimizer):
        scheduler = make(each, steps)
        if not isinstance(scheduler, Scheduler) or scheduler.optimizer is not each:
            raise TypeError(
                f"the function of Schedule is to make a scheduler of the optimizer it is given, but gave {scheduler!r}"
            )
        made.append(scheduler)
    return _joined(optimizer, made)


def with_warm_up(scheduler: Scheduler, steps: int, start: float, *, apart: bool) -> tuple[Scheduler, Any]:
    """The scheduler after its warm-up; where torch can't put both in a row, the two `apart`, None for no warm-up."""
    if not steps:
        return scheduler, None
    parts = outermost_in(scheduler)
    rises = [make_rise(part, steps, start) for part in parts]
    if apart:
        return scheduler, _joined(scheduler.optimizer, rises)
    rows = [
        lr_scheduler.SequentialLR(part.optimizer, [rise, part], milestones=[steps])
        for rise, part in zip(rises, parts, strict=True)
    ]
    return _joined(scheduler.optimizer, rows), None


def _joined(optimizer: torch.optim.Optimizer, schedulers: Sequence[Scheduler]) -> Scheduler:
    """Schedulers of all the optimizers that `optimizer` is made of, as one."""
    return schedulers[0] if len(schedulers) == 1 else SchedulerOfEach(optimizer, schedulers)
