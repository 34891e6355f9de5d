"""Learning rates by torch's schedulers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from leyden.engine import Engine, Events, Order, RemovableEventHandle, Stage, Update, UpdateEvents
from leyden.engine.resume import UNKNOWN_SETTING
from leyden.engine.step import groups_before, optimizers_in
from leyden.engine.values import WatchedMetric, whole_number
from leyden.handlers.common.watched_metrics import value_of_ranks, watch_number
from leyden.handlers.training.made_anew import (
    Rates,
    bring_to,
    put_rates_from_before,
    rates_when_made,
    tell_made_anew,
    times_stepped,
)
from leyden.handlers.training.planned_count import PlannedCount
from leyden.handlers.training.schedule_totals import UNITS, require_reach, warn_of_misfits
from leyden.handlers.training.scheduler_settings import kind_of, made_with
from leyden.handlers.training.schedulers_of_several import make_for, outermost_in, with_warm_up
from leyden.handlers.training.torch_schedulers import (
    ABSOLUTE,
    MOMENTA,
    RATES,
    Scheduler,
    check_maker,
    check_metric,
    check_warm_up,
    cycles_momentum,
    numbers_of,
    put_numbers,
    schedulers_in,
)

MakeScheduler = Callable[[torch.optim.Optimizer, int], Scheduler]


class Schedule:
    """Steps a scheduler of torch.optim.lr_scheduler: per optimizer step, per epoch, or on a metric.

    `scheduler`: one that is made, or a function that makes it when the run starts, from the optimizer and the number of
    times that it will step in the run: `lambda optimizer, steps: OneCycleLR(optimizer, 0.1, total_steps=steps)`; of an
    update with several optimizers one for each. That number knows of ranks and accumulation; `engine.total_steps` tells
    it before the run. In a run that goes on with another limit it is made anew, for the new number, and brought to
    where the run stands; that is told. One that was made before, for another number, is warned of. `update`: whose
    optimizer a function gets, where there are several updates.

    `per`: "step" (the default: after each `every`-th optimizer step, also under accumulation; a skipped step does not
    count) or "epoch" (after each `every`-th epoch). `metric`: the name of the metric that the scheduler watches
    (ReduceLROnPlateau), read per epoch; where ranks have values of their own, rank 0's counts on all.

    `warmup=n`: the learning rate rises linearly, from `warmup_start` times itself (1/3, as torch's LinearLR has it), in
    the n first steps of the schedule (n * `every` optimizer steps, or epochs); then the scheduler begins. It is torch's
    `SequentialLR(optimizer, [LinearLR(optimizer, warmup_start, total_iters=n), scheduler], [n])`, which `scheduler`
    then is. One on a metric watches it only after that; a function is given the steps that are left.

    An engine may have several. Those of one optimizer multiply each other's factors, in the order of attaching, as
    torch chains schedulers; one that sets the learning rate whatever it was before (`ABSOLUTE`, or with a warm-up)
    can't be among them. A run from the beginning begins the schedule anew too.

    Raises ValueError for an optimizer that no update of the engine has, for a metric that will not come up or whose
    name contradicts the scheduler's mode, and for a warm-up of a scheduler that has stepped already or is made of
    others; for a function, when the run starts, where the data does not tell how many steps there will be; for a
    OneCycleLR, when a run goes on past its end.
    """

    told_apart_by = ("kind", "optimizer_of", "metric")
    same_on_ranks = ("kind", "optimizer_of", "metric", "settings")

    def __init__(
        self,
        scheduler: Scheduler | MakeScheduler,
        *,
        per: str | None = None,
        every: int = 1,
        metric: str | None = None,
        warmup: int = 0,
        warmup_start: float = 1 / 3,
        update: str | None = None,
    ) -> None:
        made = isinstance(scheduler, Scheduler)
        if not made:
            check_maker(scheduler)
        watches = metric is not None or isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
        if made and not watches and update is not None:
            raise ValueError(
                f"a {type(scheduler).__name__} that is made has its optimizer; leave update={update!r} out"
            )
        check_warm_up(warmup, warmup_start)
        if per is None:
            per = "epoch" if watches else "step"
        self.scheduler: Scheduler | None = None
        """None until its function has made it."""
        self.metric = metric
        self.settings: dict[str, Any] = {"per": per, "every": every}
        """What it was made with, and its scheduler."""
        self._warmup = (int(warmup), warmup_start)
        self._rise: Any = None
        """The warm-up of a scheduler on a metric, which torch can't put in a row with others."""
        if isinstance(scheduler, Scheduler):
            self._take(scheduler)
        if per not in ("step", "epoch") or (watches and per == "step"):
            raise ValueError(f'Schedule steps per "step" or "epoch" (on a metric: "epoch"), but got per={per!r}')
        self.per = per
        self.every = whole_number("Schedule(every=)", every, 1)
        self._planned = PlannedCount(per, self.every)
        self.update = update
        self._make: Any = None if made else scheduler
        self._made_for: int | None = None
        self._made_from: Rates = []
        self._function_was_given: int | None = None
        self._unmade: list[dict[str, Any]] = []  # the groups' numbers before the function made its scheduler
        self._handle: RemovableEventHandle | None = None
        self._target: Update | None = None
        self._watch = None if self.metric is None else WatchedMetric(self.metric)
        self._beginning: tuple[dict[str, Any], list[dict[str, Any]]] | None = None
        """The schedule's state and the numbers that it sets, as they were when the run began."""
        self._waiting: dict[str, Any] | None = None  # a state loaded before there was a scheduler

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer whose learning rate it sets; None before its scheduler is made and it is attached."""
        if self.scheduler is not None:
            return self.scheduler.optimizer
        return None if self._target is None else self._target.optimizer

    @property
    def kind(self) -> str:
        """The class of its scheduler; that of one which is not made yet is not known."""
        return UNKNOWN_SETTING if self.scheduler is None else kind_of(self.scheduler)

    @property
    def optimizer_of(self) -> str | None:
        """The name of the update whose learning rate it sets; of one of several optimizers, with its place there."""
        if self._target is None or self.optimizer is self._target.optimizer:
            return None if self._target is None else self._target.name
        return f"{self._target.name}/{[each is self.optimizer for each in self._target.optimizers].index(True)}"

    def _take(self, scheduler: Scheduler, number: int | None = None) -> None:
        """Makes it the scheduler of this schedule, after its warm-up. `number`: that of its steps, told by itself."""
        for part in outermost_in(scheduler):
            check_metric(part, self.metric)
        self.scheduler, self._rise = with_warm_up(scheduler, *self._warmup, apart=self.metric is not None)
        self.settings = {name: self.settings[name] for name in ("per", "every")} | made_with(scheduler, number)

    def attach(self, engine: Engine[Any, Any]) -> None:
        self._target = self._find_target(engine)
        engine.add_event_handler(Events.STARTED, self.start, order=Order.METRICS)
        self._planned.attach(engine, self._target)
        if self.per == "epoch":
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.step)
            if self.metric is not None:
                watch_number(engine, self.metric, "Schedule")
        if self.scheduler is None:
            engine.setup.add(Stage.SCHEDULE, functools.partial(self._make_for, engine), owner=self, each_run=True)
        else:
            self._listen()

    def _find_target(self, engine: Engine[Any, Any]) -> Update | None:
        if self.scheduler is None:
            updates = engine.targets(self.update, self)
            if len(updates) > 1:
                raise ValueError(
                    f"the engine has several updates ({', '.join(engine.updates)}); name the one whose optimizer the "
                    "function of Schedule is to get, by update="
                )
            return updates[0]
        own = self.scheduler.optimizer
        updates = [each for each in engine.updates.values() if groups_before(each.optimizer, own) is not None]
        if not updates and (engine.updates or self.per == "step"):
            engine.require_update(self)
            raise ValueError(
                f"the {type(self.scheduler).__name__} schedules an optimizer that no update of the engine has "
                f"({', '.join(engine.updates)}); make the scheduler from the optimizer that the trainer was given"
            )
        return updates[0] if updates else None

    def _listen(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        if self.per == "step":
            assert self._target is not None
            assert self.scheduler is not None
            event = UpdateEvents.STEP_COMPLETED(every=self.every)
            self._handle = self._target.add_event_handler(event, self.scheduler.step)

    def refuses(self, other: Any) -> str | None:
        if not isinstance(other, Schedule) or self.scheduler is None or not self._shares_optimizer(other):
            return None
        own = schedulers_in(self.scheduler)
        if other.scheduler is not None and any(part is each for part in own for each in schedulers_in(other.scheduler)):
            return f"both step the same {type(self.scheduler).__name__}, which would go twice as fast; attach one"
        for scheduler in own:
            if isinstance(scheduler, ABSOLUTE):
                return (
                    f"{type(scheduler).__name__} sets the learning rate of their optimizer whatever the other one did; "
                    "use one scheduler per optimizer, which may be made of others (SequentialLR, or ChainedScheduler "
                    "with a LinearLR as the warm-up)"
                )
        return None

    def _shares_optimizer(self, other: Schedule) -> bool:
        mine, theirs = (() if each is None else optimizers_in(each) for each in (self.optimizer, other.optimizer))
        return any(one is another for one in mine for another in theirs)

    # -- made by a function ----------------------------------------------------------------------------------

    def _make_for(self, engine: Engine[Any, Any]) -> None:
        """Calls the function to make the scheduler for a run that begins; a continued run keeps its own."""
        assert self._target is not None
        steps = self._planned.now()
        if self.scheduler is not None and (engine.state.iteration > 0 or steps == self._made_for):
            return
        if steps is None:
            raise ValueError(
                f"the function of Schedule needs the number of {UNITS[self.per]} in the run, which is not "
                "known in advance: give run() a max_epochs, and an epoch_length where the data does not tell its own"
            )
        optimizer = self._target.optimizer
        if self.scheduler is None:
            self._unmade = numbers_of(optimizer.param_groups)
        else:
            put_numbers(optimizer.param_groups, self._unmade)
        self._take_from_function(optimizer, steps)
        self._made_for, self._beginning = steps, None
        if self._waiting is None:
            self._made_from = rates_when_made(self._unmade, optimizer)
        for other in engine.handlers.values():
            reason = None if other is self or not hasattr(other, "refuses") else other.refuses(self)
            if reason := (reason or (None if other is self else self.refuses(other))):
                raise ValueError(f"Schedule and {type(other).__name__} can't both be attached to one engine: {reason}")
        self._listen()
        if self._waiting is not None:  # the optimizer has what belongs to it already
            state, self._waiting = self._waiting, None
            self._load_schedule(state)
            put_numbers(optimizer.param_groups, self._unmade)

    def _take_from_function(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self._function_was_given = steps
        number = max(1, steps - self._warmup[0])
        self._take(make_for(self._make, optimizer, number), number)

    def _make_anew(self, steps: int, planned: int) -> None:
        """Calls the function again for a new number of steps, and steps the scheduler to where the run stands."""
        assert self.scheduler is not None
        optimizer, times = self.scheduler.optimizer, times_stepped(self.scheduler)
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        put_rates_from_before(optimizer, self._made_from)
        self._take_from_function(optimizer, steps)
        self._made_for = self._beginning = None  # a run from the beginning makes its own
        bring_to(self.scheduler, times)
        self._listen()
        if steps != planned:
            tell_made_anew(self.scheduler, steps, planned, UNITS[self.per], rates)

    def start(self, engine: Engine[Any, Any]) -> None:
        """Treats a metric that is there already (restored, perhaps) as old; resets at the beginning of a run."""
        if self._watch is not None:
            self._watch.start(engine.state)
        if engine.state.iteration > 0:
            self._go_on(engine)
            return
        assert self.scheduler is not None
        groups = self.scheduler.optimizer.param_groups
        if self._beginning is None:
            numbers = RATES + MOMENTA if cycles_momentum(self.scheduler) else RATES
            self._beginning = self._schedule_state(), numbers_of(groups, numbers)
        else:
            self._load_schedule(self._beginning[0])
            put_numbers(groups, self._beginning[1])
        counts = self._counts(engine)
        self._planned.begin(counts.get(self.per))
        if self.metric is None:
            warn_of_misfits(self.scheduler, counts, self.per)

    def _go_on(self, engine: Engine[Any, Any]) -> None:
        """For a continued run, which may have another end than it had."""
        counts, planned = self._counts(engine), self._planned.count
        steps = counts.get(self.per)
        if steps is None or self.metric is not None or (steps == planned and self._function_was_given in (None, steps)):
            self._planned.begin(planned)
            return
        assert self.scheduler is not None
        same = [each for each in engine.handlers.values() if isinstance(each, Schedule)]
        alone = all(each is self or not self._shares_optimizer(each) for each in same)
        if self._make is not None and planned is not None and alone and times_stepped(self.scheduler) < steps:
            self._make_anew(steps, planned)
        require_reach(self.scheduler, steps, UNITS[self.per])
        self._planned.begin(steps)
        warn_of_misfits(self.scheduler, counts, self.per)

    def _counts(self, engine: Engine[Any, Any]) -> dict[str, int | None]:
        # Of several updates each may step once in some batches; that is the process function's secret.
        steps_known = len(engine.updates) == 1 or self._make is not None
        return self._planned.by_pace(UNITS if steps_known else ("epoch",))

    def step(self, engine: Engine[Any, Any]) -> None:
        """Steps for an epoch; on a metric only if the epoch brought a new value of it."""
        assert self.scheduler is not None
        if self._watch is None:
            self.scheduler.step()
            return
        is_new, value = value_of_ranks(engine, self._watch, self._target)
        if self._rise is not None and self._rise.last_epoch < self._rise.total_iters:
            self._rise.step()
        elif is_new:
            self.scheduler.step(value)

    def state_dict(self) -> dict[str, Any]:
        if self.scheduler is None and self._waiting is None:
            return {}
        state = self._schedule_state() if self._waiting is None else self._waiting
        state = state | self._planned.state_dict() | {"made_from": copy.deepcopy(self._made_from)}
        return state | ({} if self._watch is None else {"times_set": self._watch.times_set})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        times_set = state.pop("times_set", None)
        if self._watch is not None:
            self._watch.load(times_set)
        self._planned.take(state)
        self._made_from = state.pop("made_from", [])  # not in a checkpoint of an earlier version
        self._made_for = None  # what was made here before it is not what a run from the beginning begins with
        if self.scheduler is None:
            self._waiting = state
        else:
            self._load_schedule(state)

    def _schedule_state(self) -> dict[str, Any]:
        # Copied, since torch hands out the scheduler's own lists, and takes entries out of what it loads.
        assert self.scheduler is not None
        state = copy.deepcopy(self.scheduler.state_dict()) | {"settings": dict(self.settings)}
        return state if self._rise is None else state | {"warmup": copy.deepcopy(self._rise.state_dict())}

    def _load_schedule(self, state_dict: dict[str, Any]) -> None:
        assert self.scheduler is not None
        state = copy.deepcopy(state_dict)
        self.settings = state.pop("settings", self.settings)  # a scheduler takes over how it was made, too
        if self._rise is not None and "warmup" in state:
            self._rise.load_state_dict(state.pop("warmup"))
        self.scheduler.load_state_dict(state)
