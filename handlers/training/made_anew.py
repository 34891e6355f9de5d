"""A scheduler that is made anew in mid-run, for another number of steps, and brought to where the run stands."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from leyden import distributed as dist
from leyden.distributed.compat import parts_of_scheduler
from leyden.handlers.training.schedulers_of_several import SchedulerOfEach, outermost_in
from leyden.handlers.training.torch_schedulers import Scheduler, put_numbers

Rates = list[list[float]]


def rates_when_made(unmade: Sequence[dict[str, Any]], optimizer: torch.optim.Optimizer) -> Rates:
    """For each group: the learning rate from which a scheduler was made, and the "initial_lr" that it has by it."""
    groups = zip(unmade, optimizer.param_groups, strict=False)
    return [[float(before["lr"]), float(group.get("initial_lr", before["lr"]))] for before, group in groups]


def put_rates_from_before(optimizer: torch.optim.Optimizer, when_made: Rates) -> None:
    """Puts back the learning rates from which the scheduler was made, times what has become of "initial_lr" since (a
    resume that overrides "lr"); without a record "initial_lr" itself.
    """
    for place, group in enumerate(optimizer.param_groups):
        base = float(group.get("initial_lr", group["lr"]))
        if place < len(when_made):
            unmade, initial = when_made[place]
            base = unmade * (base / initial) if initial else unmade
        put_numbers([group], [{"lr": base}])


def times_stepped(scheduler: Scheduler) -> int:
    """How often it has stepped."""
    if isinstance(scheduler, lr_scheduler.ChainedScheduler | SchedulerOfEach):  # which do not count themselves
        return times_stepped(parts_of_scheduler(scheduler)[0])
    return scheduler.last_epoch


def bring_to(scheduler: Scheduler, times: int) -> None:
    """Steps a new scheduler that many times, since most of torch's compute each learning rate from the one before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        while times_stepped(scheduler) < times:
            scheduler.step()


def tell_made_anew(scheduler: Scheduler, counts: int, planned: int, unit: str, rates: list[float]) -> None:
    """Warns, on rank 0, that the curve changes from here on. `rates`: the learning rates so far."""
    if dist.rank() == 0:
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in outermost_in(scheduler)))
        now = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
        warnings.warn(
            f"the run goes on to {counts} {unit}, and was planned for {planned}: the function of Schedule has made its "
            f"{kinds} anew for {counts}, brought to where it stands ({times_stepped(scheduler)}): "
            f"the learning rate is {_numbers(now)} there, and was {_numbers(rates)}",
            stacklevel=3,
        )


def _numbers(rates: list[float]) -> str:
    return ", ".join(f"{rate:.6g}" for rate in dict.fromkeys(rates))
