"""Checks that the schedulers of a run are made for as many steps as it has."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from leyden import distributed as dist
from leyden.distributed.compat import milestones_of, parts_of_scheduler
from leyden.engine import Engine, Update
from leyden.engine.step import completed, planned_steps
from leyden.handlers.training.schedulers_of_several import SchedulerOfEach, outermost_in

UNITS = {"step": "optimizer steps", "epoch": "epochs"}


def run_counts(engine: Engine[Any, Any], update: Update | None, per: str, every: int) -> int | None:
    """How often something that counts the "step" or the "epoch" by `every` counts in the present run; None
    where that is not known before.
    """
    if per == "epoch":
        max_epochs = completed(engine).max_epochs
        return None if max_epochs is None else max_epochs // every
    if update is None:
        return None
    steps = planned_steps(engine, completed(engine), update)
    return None if steps is None else steps // every


def warn_of_misfits(scheduler: Any, counts_of: Mapping[str, int | None], per: str) -> None:
    """Warns by name of each scheduler that is made for more or fewer counts than the run has, of those of each pace."""
    if (counts := counts_of.get(per)) is None:
        return
    unit = UNITS[per]
    other = {f'per="{each}"': number for each, number in counts_of.items() if each != per}
    advice = "Schedule(lambda optimizer, steps: ...) has it made for the run's own number"
    if unit == "optimizer steps":
        advice += ", which trainer.total_steps(loader, max_epochs) tells before the run"
    for total, at_least, what, effect in misfits(scheduler, counts):
        hint = next((f"; {said} would step it {n} times" for said, n in other.items() if n and abs(n - total) <= 1), "")
        more = "at least " if at_least else ""
        if dist.rank() == 0:
            warnings.warn(
                f"{what} is made for {more}{total} {unit}, but the run has {counts}: {effect}{hint}. {advice}",
                stacklevel=3,
            )


def require_reach(scheduler: Any, counts: int, unit: str, before: int = 0) -> None:
    """Raises ValueError where the last scheduler of a run is a OneCycleLR that ends before the run does."""
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        require_reach(parts_of_scheduler(scheduler)[-1], counts, unit, before + milestones_of(scheduler)[-1])
    elif isinstance(scheduler, lr_scheduler.ChainedScheduler | SchedulerOfEach):
        for part in parts_of_scheduler(scheduler):
            require_reach(part, counts, unit, before)
    elif isinstance(scheduler, lr_scheduler.OneCycleLR) and before + scheduler.total_steps < counts:
        raise ValueError(
            f"the run is to go on to {counts} {unit}, but its OneCycleLR is made for "
            f"{before + scheduler.total_steps}, after which torch raises an error. End the run there, or attach "
            "Schedule(lambda optimizer, steps: OneCycleLR(optimizer, max_lr, total_steps=steps)), which a run that "
            "goes on has made anew for its number"
        )


def misfits(scheduler: Any, counts: int, before: str = "") -> Iterator[tuple[int, bool, str, str]]:
    """The totals that differ from `counts` by more than one: (total, whether it is a least one, whose, what comes)."""
    if isinstance(scheduler, SchedulerOfEach):
        yield from dict.fromkeys(each for part in outermost_in(scheduler) for each in misfits(part, counts, before))
        return
    name = type(scheduler).__name__ + before
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        begins = milestones_of(scheduler)[-1]
        if begins >= counts:
            yield begins + 1, True, name, "its last part never begins"
        else:
            after = f" (after {begins} of SequentialLR)"
            last = parts_of_scheduler(scheduler)[-1]
            for total_after, is_least, what, effect in misfits(last, counts - begins, after):
                yield total_after + begins, is_least, what, effect
        return
    if isinstance(scheduler, lr_scheduler.ChainedScheduler):
        for part in parts_of_scheduler(scheduler):
            yield from misfits(part, counts, before)
        return
    total, least = _total_of(scheduler)
    if total is None:
        return
    if total > counts + 1:
        yield total, least, name, "it does not come to its end"
    elif not least and total < counts - 1:
        yield total, least, name, _afterwards(scheduler)


def _total_of(scheduler: Any) -> tuple[int | None, bool]:
    """The counts for which a scheduler is made, and whether more do no harm."""
    if isinstance(scheduler, lr_scheduler.OneCycleLR):
        return scheduler.total_steps, False
    if isinstance(scheduler, lr_scheduler.CosineAnnealingLR):
        return scheduler.T_max, False
    if isinstance(scheduler, lr_scheduler.PolynomialLR):
        return scheduler.total_iters, False
    if isinstance(scheduler, lr_scheduler.LinearLR):
        return scheduler.total_iters, scheduler.end_factor != 0
    if isinstance(scheduler, lr_scheduler.ConstantLR):
        return scheduler.total_iters, True
    if isinstance(scheduler, SWALR):
        return scheduler.anneal_epochs, True
    if isinstance(scheduler, lr_scheduler.CosineAnnealingWarmRestarts):
        return scheduler.T_0, True
    if isinstance(scheduler, lr_scheduler.CyclicLR):
        return int(scheduler.total_size), True
    if isinstance(scheduler, lr_scheduler.MultiStepLR):
        return max(scheduler.milestones, default=0), True
    return None, True


def _afterwards(scheduler: Any) -> str:
    if isinstance(scheduler, lr_scheduler.OneCycleLR):
        return "torch raises an error at the step after its last one"
    if isinstance(scheduler, lr_scheduler.CosineAnnealingLR):
        return "the learning rate rises again after its end"
    return "the learning rate is 0 from its end on"
