"""The moments of a run at which an evaluation may have found the best weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leyden.engine import Engine, Events, Order, Stage
from leyden.engine.values import NEVER
from leyden.handlers.evaluating import Evaluate


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
