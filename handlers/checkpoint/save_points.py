"""The points of a run at which it can be saved, how one is told from another, and those after an evaluation."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from leyden.engine import Engine, Events, Order, Stage, UpdateEvents
from leyden.engine.events import AnyEvent, events_in, without_filter
from leyden.engine.resume import Held, Suspension
from leyden.engine.values import NEVER
from leyden.handlers.evaluating import Evaluate
from leyden.handlers.monitoring.pace import Pace

STEP_UNDONE: tuple[object, ...] = (
    *(Events.STARTED, Events.EPOCH_STARTED, Events.GET_BATCH_STARTED, Events.GET_BATCH_COMPLETED),
    *(Events.DATALOADER_STOP_ITERATION, Events.ITERATION_STARTED, Events.EXCEPTION_RAISED),
    *(event for event in UpdateEvents if event is not UpdateEvents.STEP_COMPLETED),
)
"""Events between which and the end of an iteration something is still to be done: no state to go on from."""


class Moment(NamedTuple):
    """Equal for two moments only if nothing was done between them that a run which goes on would not do again.
    suspended: where the run was stopped among the handlers of an event, or before a step.
    """

    epoch: int
    iteration: int
    epoch_open: bool
    suspended: Suspension | Held | None

    @classmethod
    def of(cls, engine: Engine[Any, Any]) -> Moment:
        state = engine.state
        stopped = engine.suspended or engine.run_data.held
        return cls(state.epoch, state.iteration, engine.cursor.epoch_open, stopped)

    def repeats(self, other: Moment) -> bool:
        """The same iteration, of which handlers have done more now."""
        return (self.epoch, self.iteration) == (other.epoch, other.iteration)


def run_ends_here(engine: Engine[Any, Any]) -> bool:
    """The running iteration is the run's last, at whose end comes COMPLETED."""
    return engine.cursor.epoch_open and engine.state.iteration >= engine.run_end


def check_event(event: AnyEvent) -> None:
    """Raises ValueError for an event at which no state can be saved to go on from."""
    for part in events_in(event):
        key = without_filter(part)
        if key in STEP_UNDONE:
            raise ValueError(
                f"Checkpoint can't save at {key}, in the midst of an iteration: no run could go on from there. Take "
                "Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED or UpdateEvents.STEP_COMPLETED, filtered at will"
            )


def save_at(engine: Engine[Any, Any], event: AnyEvent, save: Callable[[Engine[Any, Any]], None]) -> None:
    """Lets `save` be called at the event, after the other handlers."""
    for part in events_in(event):
        if without_filter(part) is UpdateEvents.STEP_COMPLETED:  # within an iteration
            AfterSteps(engine, part, save)
        else:
            engine.add_event_handler(part, save, order=Order.SAVERS)


class AfterSteps:
    """Saves after an optimizer step, at the end of its iteration: another update's step may come before that, and a
    metric count its output.
    """

    def __init__(self, engine: Engine[Any, Any], event: AnyEvent, save: Callable[[Engine[Any, Any]], None]) -> None:
        self._save = save
        self._due = False
        engine.add_event_handler(event, self._note)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look, order=Order.SAVERS)

    def _note(self) -> None:
        self._due = True

    def _look(self, engine: Engine[Any, Any]) -> None:
        if self._due:
            self._due = False
            self._save(engine)


class Between:
    """Whether a run stands between two iterations, all handlers of the last one done: as where the next batch can't be
    had. Costs one call in each iteration.
    """

    def __init__(self, engine: Engine[Any, Any]) -> None:
        self._iteration: int | None = None
        for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED):
            engine.add_event_handler(event, self._leave, order=Order.FIRST)
        for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.ITERATION_COMPLETED):
            engine.add_event_handler(event, functools.partial(self._arrive, engine), order=Order.LAST)

    def stands(self, engine: Engine[Any, Any]) -> bool:
        return self._iteration == engine.state.iteration

    def _leave(self) -> None:
        self._iteration = None

    def _arrive(self, engine: Engine[Any, Any]) -> None:
        self._iteration = engine.state.iteration


class Clock(Pace):
    """Asks for a save every so many minutes after the last one; rank 0's clock alone is read, at few iterations."""

    def __init__(self, engine: Engine[Any, Any], minutes: float) -> None:
        super().__init__(60 * minutes)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        self._handle = engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)

    def restart(self) -> None:
        """A save has begun."""
        self._shown_at = time.monotonic()

    def _start(self, engine: Engine[Any, Any]) -> None:
        self.restart()
        self._begin_epoch(engine)

    def _begin_epoch(self, engine: Engine[Any, Any]) -> None:
        self.begin(engine.state.iteration)

    def _look(self, engine: Engine[Any, Any]) -> None:
        if self.is_time():
            engine.request_save()
        self._handle.defer_until(engine.state.iteration + self.steps(engine.state.iteration))


class AfterEvaluations:
    """Calls `look` at the end of each epoch, and at the end of an iteration in which an evaluation brought its metrics,
    once all handlers that come before savers are done. Any other iteration costs nothing.
    """

    def __init__(self, engine: Engine[Any, Any], look: Callable[[Engine[Any, Any]], None]) -> None:
        self._engine = engine
        self._look = look
        self._due = False
        self._handle = engine.add_event_handler(Events.ITERATION_COMPLETED, self._pass_on, order=Order.SAVERS)
        self._handle.defer_until(NEVER)
        engine.add_event_handler(Events.EPOCH_COMPLETED, look, order=Order.SAVERS)
        engine.setup.add(Stage.DEVICE, self._listen, each_run=True)

    def _listen(self) -> None:
        """As a run begins: to all evaluations that are attached by now."""
        for each in self._engine.find_handlers(Evaluate):
            if self._wake not in each.after:
                each.after.append(self._wake)

    def _wake(self) -> None:
        if self._engine.cursor.epoch_open:
            self._due = True
            self._handle.defer_until(self._engine.state.iteration)

    def _pass_on(self, engine: Engine[Any, Any]) -> None:
        due, self._due = self._due, False
        self._handle.defer_until(NEVER)
        # What the last iteration of an epoch has measured is looked at where the epoch ends, a moment later.
        if due and engine.state.iteration < engine.last_iteration:
            self._look(engine)
