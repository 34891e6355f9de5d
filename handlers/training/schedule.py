"""Learning rates by torch's schedulers."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.optim import lr_scheduler

from leyden.engine import Engine, Events, Order, UpdateEvents
from leyden.handlers.metric_modes import mode_of

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


class Schedule:
    """Steps a scheduler of torch.optim.lr_scheduler: per optimizer step, per epoch, or on a metric.

    `per`: "step" (the default: after each `every`-th optimizer step, also under accumulation; a skipped step does not
    count) or "epoch" (after each `every`-th epoch). `metric`: the name of the metric that the scheduler watches
    (ReduceLROnPlateau), read per epoch.

    `warmup=n`: the learning rate rises linearly, from `warmup_start` times itself (1/3, as torch's LinearLR has it), in
    the n first steps of the schedule (n * `every` optimizer steps, or epochs); then the scheduler begins. It is torch's
    `SequentialLR(optimizer, [LinearLR(optimizer, warmup_start, total_iters=n), scheduler], [n])`, which `scheduler`
    then is. One on a metric watches it only after that.

    An engine may have several. Those of one optimizer multiply each other's factors, in the order of attaching, as
    torch chains schedulers; one that sets the learning rate whatever it was before (`ABSOLUTE`, or with a warm-up)
    can't be among them. A run from the beginning begins the schedule anew too.

    Raises ValueError for an optimizer that no update of the engine has, for a metric that will not come up or whose
    name contradicts the scheduler's mode, and for a warm-up of a scheduler that has stepped already or is made of
    others.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        per: str | None = None,
        every: int = 1,
        metric: str | None = None,
        warmup: int = 0,
        warmup_start: float = 1 / 3,
    ) -> None:
        if not isinstance(scheduler, Scheduler):
            raise TypeError(f"Schedule takes a scheduler of torch.optim.lr_scheduler, but got {scheduler!r}")
        watches = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
        if watches != (metric is not None):
            need = "needs metric=, the name of what it watches" if watches else "watches no metric; leave metric= out"
            raise ValueError(f"{type(scheduler).__name__} {need}")
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            _check_mode(scheduler, metric)
        if per is None:
            per = "epoch" if watches else "step"
        if per not in ("step", "epoch") or (watches and per == "step"):
            raise ValueError(f'Schedule steps per "step" or "epoch" (on a metric: "epoch"), but got per={per!r}')
        self.scheduler = scheduler
        self.per = per
        self.every = every
        self.metric = metric
        self._times_set = 0
        self._goes_on = False  # it is known which value was the last one seen
        self._beginning: tuple[dict[str, Any], list[dict[str, Any]]] | None = None
        """The schedule's state and the numbers that it sets, as they were when the run began."""
        self._rise: lr_scheduler.LinearLR | None = None
        """The warm-up of a scheduler on a metric, which torch can't put in a row with others."""
        _check_warmup(warmup, warmup_start)
        if warmup:
            self._warm_up(warmup, warmup_start)

    def _warm_up(self, steps: int, start: float) -> None:
        scheduler = self.scheduler
        name = type(scheduler).__name__
        if parts_of(scheduler) != [scheduler]:
            raise ValueError(
                f"{name} is made of other schedulers, before which torch can't put a warm-up; make "
                "LinearLR(optimizer, start_factor, total_iters=n) one of them, and leave warmup= out"
            )
        if scheduler.last_epoch != 0:
            raise ValueError(f"a warm-up comes first, but this {name} has stepped already; make a new one for Schedule")
        rise = lr_scheduler.LinearLR(scheduler.optimizer, start, total_iters=steps)
        if self.metric is not None:
            self._rise = rise
        else:
            self.scheduler = lr_scheduler.SequentialLR(scheduler.optimizer, [rise, scheduler], milestones=[steps])

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = [update for update in engine.updates.values() if update.optimizer is self.scheduler.optimizer]
        if not updates and (engine.updates or self.per == "step"):
            engine.require_update(self)
            raise ValueError(
                f"the {type(self.scheduler).__name__} schedules an optimizer that no update of the engine has "
                f"({', '.join(engine.updates)}); make the scheduler from the optimizer that the trainer was given"
            )
        engine.add_event_handler(Events.STARTED, self.start, order=Order.METRICS)
        if self.per == "epoch":
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.step)
            if self.metric is not None:
                engine.add_event_handler(Events.STARTED, engine.require_metric, self.metric, "Schedule")
        else:
            updates[0].add_event_handler(UpdateEvents.STEP_COMPLETED(every=self.every), self.scheduler.step)

    def refuses(self, other: Any) -> str | None:
        if not isinstance(other, Schedule) or other.scheduler.optimizer is not self.scheduler.optimizer:
            return None
        for scheduler in parts_of(self.scheduler):
            if isinstance(scheduler, ABSOLUTE):
                return (
                    f"{type(scheduler).__name__} sets the learning rate of their optimizer whatever the other one did; "
                    "take one scheduler an optimizer, which may be made of others (SequentialLR, or ChainedScheduler "
                    "with a LinearLR as the warm-up)"
                )
        return None

    def start(self, engine: Engine[Any, Any]) -> None:
        """Takes a metric that is there already, restored perhaps, for an old one; begins anew where the run does."""
        if self.metric is not None and not self._goes_on:
            self._times_set = engine.state.metrics.times_set.get(self.metric, 0)
        self._goes_on = False
        if engine.state.iteration > 0:
            return
        groups = self.scheduler.optimizer.param_groups
        if self._beginning is None:
            numbers = RATES + MOMENTA if cycles_momentum(self.scheduler) else RATES
            here = [{name: group[name] for name in numbers if name in group} for group in groups]
            self._beginning = self._schedule_state(), copy.deepcopy(here)
            return
        state, values = self._beginning
        self._load_schedule(state)
        for group, before in zip(groups, values, strict=False):
            for name, value in before.items():
                if isinstance(group[name], torch.Tensor):
                    group[name].fill_(value)
                else:
                    group[name] = value

    def step(self, engine: Engine[Any, Any]) -> None:
        """Steps for an epoch; on a metric only if the epoch brought a new value of it."""
        if self.metric is None:
            self.scheduler.step()
            return
        times_set = engine.state.metrics.times_set.get(self.metric, 0)
        is_new = times_set != self._times_set
        self._times_set = times_set
        if self._rise is not None and self._rise.last_epoch < self._rise.total_iters:
            self._rise.step()
        elif is_new:
            self.scheduler.step(engine.state.metrics[self.metric])

    def state_dict(self) -> dict[str, Any]:
        return self._schedule_state() | ({} if self.metric is None else {"times_set": self._times_set})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._goes_on = "times_set" in state  # not in a checkpoint of schema 1
        self._times_set = state.pop("times_set", 0)
        self._load_schedule(state)

    def _schedule_state(self) -> dict[str, Any]:
        # Copied, since torch hands out the scheduler's own lists, and takes entries out of what it loads.
        state = copy.deepcopy(self.scheduler.state_dict())
        return state if self._rise is None else state | {"warmup": copy.deepcopy(self._rise.state_dict())}

    def _load_schedule(self, state_dict: dict[str, Any]) -> None:
        state = copy.deepcopy(state_dict)
        if self._rise is not None and "warmup" in state:
            self._rise.load_state_dict(state.pop("warmup"))
        self.scheduler.load_state_dict(state)


def cycles_momentum(scheduler: Scheduler) -> bool:
    """True if it sets the momentum, or the first of the betas, too."""
    return any(getattr(part, "cycle_momentum", False) for part in parts_of(scheduler))


def parts_of(scheduler: Scheduler) -> list[Scheduler]:
    """The scheduler itself, and those that it is made of."""
    parts: list[Scheduler] = getattr(scheduler, "_schedulers", [])
    return [scheduler, *(inner for part in parts for inner in parts_of(part))]


def _check_mode(scheduler: lr_scheduler.ReduceLROnPlateau, metric: Any) -> None:
    if not isinstance(metric, str):
        raise TypeError(f"Schedule takes metric= as the name of a metric, but got {metric!r}")
    said = mode_of(metric)
    if said not in (None, scheduler.mode):
        raise ValueError(
            f'{type(scheduler).__name__} of mode="{scheduler.mode}" (torch\'s default is "min") is to watch '
            f'"{metric}", of which, by its name, {"more" if said == "max" else "less"} is better; '
            f'make it with mode="{said}", or give the metric a name that does not mislead'
        )


def _check_warmup(steps: Any, start: float) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"Schedule warms up for a whole number of steps, but got warmup={steps!r}")
    if steps < 0:
        raise ValueError(f"Schedule warms up for 0 steps or more, but got warmup={steps}")
    if not 0 < start <= 1:
        raise ValueError(f"warmup_start is a factor above 0 and at most 1, but is {start}")
