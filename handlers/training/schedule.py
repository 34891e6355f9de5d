"""Learning rates by torch's schedulers."""

from __future__ import annotations

from typing import Any

import torch

from leyden.engine import Engine, Events, Order, UpdateEvents

Scheduler = torch.optim.lr_scheduler.LRScheduler


class Schedule:
    """Steps a scheduler of torch.optim.lr_scheduler: per optimizer step, per epoch, or on a metric.

    `per`: "step" (the default: after each `every`-th optimizer step, also under accumulation; a skipped step does not
    count) or "epoch" (after each `every`-th epoch). `metric`: the name of the metric that the scheduler watches
    (ReduceLROnPlateau), read per epoch.

    Raises ValueError for an optimizer that no update of the engine has, and for a metric that will not come up.
    """

    def __init__(
        self, scheduler: Scheduler, *, per: str | None = None, every: int = 1, metric: str | None = None
    ) -> None:
        if not isinstance(scheduler, Scheduler):
            raise TypeError(f"Schedule takes a scheduler of torch.optim.lr_scheduler, but got {scheduler!r}")
        watches = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if watches != (metric is not None):
            need = "needs metric=, the name of what it watches" if watches else "watches no metric; leave metric= out"
            raise ValueError(f"{type(scheduler).__name__} {need}")
        if per is None:
            per = "epoch" if watches else "step"
        if per not in ("step", "epoch") or (watches and per == "step"):
            raise ValueError(f'Schedule steps per "step" or "epoch" (on a metric: "epoch"), but got per={per!r}')
        self.scheduler = scheduler
        self.per = per
        self.every = every
        self.metric = metric
        self._times_set = 0

    def attach(self, engine: Engine[Any, Any]) -> None:
        updates = [update for update in engine.updates.values() if update.optimizer is self.scheduler.optimizer]
        if not updates and (engine.updates or self.per == "step"):
            there = ", ".join(update.name for update in engine.targets(None, self))
            raise ValueError(
                f"the {type(self.scheduler).__name__} schedules an optimizer that no update of the engine has "
                f"({there}); make the scheduler from the optimizer that the trainer was given"
            )
        if self.per == "epoch":
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.step)
            if self.metric is not None:
                engine.add_event_handler(Events.STARTED, engine.require_metric, self.metric, "Schedule")
                engine.add_event_handler(Events.STARTED, self.start, order=Order.METRICS)
        else:
            updates[0].add_event_handler(UpdateEvents.STEP_COMPLETED(every=self.every), self.scheduler.step)

    def start(self, engine: Engine[Any, Any]) -> None:
        """Takes a value that is there already, restored perhaps, for an old one."""
        assert self.metric is not None
        self._times_set = engine.state.metrics.times_set.get(self.metric, 0)

    def step(self, engine: Engine[Any, Any]) -> None:
        """Steps for an epoch; on a metric only if the epoch brought a new value of it."""
        if self.metric is None:
            self.scheduler.step()
            return
        times_set = engine.state.metrics.times_set.get(self.metric, 0)
        if times_set != self._times_set:
            self._times_set = times_set
            self.scheduler.step(engine.state.metrics[self.metric])

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state_dict)
