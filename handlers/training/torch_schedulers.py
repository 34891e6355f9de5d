"""torch's schedulers: what they set, what they are made of, and a warm-up before one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from leyden.distributed.compat import parts_of_scheduler
from leyden.engine.values import as_whole
from leyden.handlers.common.metric_modes import mode_of

Scheduler = lr_scheduler.LRScheduler

ABSOLUTE = (
    lr_scheduler.CyclicLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
    lr_scheduler.LambdaLR,
    lr_scheduler.OneCycleLR,
    lr_scheduler.SequentialLR,
)
"""Schedulers that set a learning rate whatever it was before; the others multiply the one that is there."""

RATES, MOMENTA = ("lr", "initial_lr"), ("momentum", "betas")
"""Of an optimizer's groups, what schedulers set."""


def schedulers_in(scheduler: Scheduler) -> list[Scheduler]:
    """The scheduler itself, and those that it is made of."""
    return [scheduler, *(inner for part in parts_of_scheduler(scheduler) for inner in schedulers_in(part))]


def cycles_momentum(scheduler: Scheduler) -> bool:
    """True if it sets the momentum, or the first of the betas, too."""
    return any(getattr(part, "cycle_momentum", False) for part in schedulers_in(scheduler))


def numbers_of(groups: Sequence[dict[str, Any]], names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Copies of these numbers of an optimizer's groups; by default of all that they have beside their parameters."""
    kept = [
        {name: value for name, value in group.items() if (name in names if names else not name.startswith("param"))}
        for group in groups
    ]
    return copy.deepcopy(kept)


def put_numbers(groups: Sequence[dict[str, Any]], numbers: Sequence[dict[str, Any]]) -> None:
    """Puts such numbers back; a tensor is filled, since a captured step may hold it."""
    for group, before in zip(groups, numbers, strict=False):
        for name, value in before.items():
            if isinstance(group.get(name), torch.Tensor):
                group[name].fill_(value)
            else:
                group[name] = value


def check_warm_up(steps: Any, start: float) -> None:
    """Raises TypeError or ValueError for an invalid warm-up."""
    if as_whole(steps) is None:
        raise TypeError(f"Schedule warms up for a whole number of steps, but got warmup={steps!r}")
    if steps < 0:
        raise ValueError(f"Schedule warms up for 0 steps or more, but got warmup={steps}")
    if not 0 < start <= 1:
        raise ValueError(f"warmup_start is a factor above 0 and at most 1, but is {start}")


def make_rise(scheduler: Scheduler, steps: int, start: float) -> lr_scheduler.LinearLR:
    """The warm-up before a scheduler. Raises ValueError for one that is made of others or has stepped."""
    name = type(scheduler).__name__
    if schedulers_in(scheduler) != [scheduler]:
        raise ValueError(
            f"{name} is made of other schedulers, before which torch can't put a warm-up; make "
            "LinearLR(optimizer, start_factor, total_iters=n) one of them, and leave warmup= out"
        )
    if scheduler.last_epoch != 0:
        raise ValueError(f"a warm-up comes first, but this {name} has stepped already; make a new one for Schedule")
    return lr_scheduler.LinearLR(scheduler.optimizer, start, total_iters=steps)


def check_maker(make: Any) -> None:
    """Raises TypeError unless it is a function that can be called with (optimizer, steps)."""
    try:
        if isinstance(make, type) or not callable(make):
            raise TypeError("it is no function")
        inspect.signature(make).bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"Schedule takes a scheduler of torch.optim.lr_scheduler, but got {make!r}; a function that makes one "
            f"takes (optimizer, steps): {error}"
        ) from None


def check_metric(scheduler: Scheduler, metric: Any) -> None:
    """Raises ValueError for a metric that the scheduler does not watch, or where it watches one and none is named, or
    one of which it takes the worst for the best.
    """
    watches = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    if watches != (metric is not None):
        need = "needs metric=, the name of what it watches" if watches else "watches no metric; leave metric= out"
        raise ValueError(f"{type(scheduler).__name__} {need}")
    if not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return
    if not isinstance(metric, str):
        raise TypeError(f"Schedule takes metric= as the name of a metric, but got {metric!r}")
    said = mode_of(metric)
    if said not in (None, scheduler.mode):
        raise ValueError(
            f'{type(scheduler).__name__} of mode="{scheduler.mode}" (torch\'s default is "min") is to watch '
            f'"{metric}", of which, by its name, {"more" if said == "max" else "less"} is better; '
            f'make it with mode="{said}", or give the metric a name that does not mislead'
        )
