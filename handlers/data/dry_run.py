"""A short run that checks whether everything works."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from leyden import distributed as dist
from leyden.engine import DataStage, Engine, Events, Order, Stage, UpdateEvents
from leyden.engine.values import as_whole
from leyden.handlers.data.limit_batches import LimitedData
from leyden.handlers.evaluating import Evaluate

logger = logging.getLogger(__name__)


@runtime_checkable
class Mutable(Protocol):
    """A handler that reads or writes files or talks to a server, and can be told not to."""

    def mute(self) -> None:
        """From the next run on, works as before but touches nothing outside of the process; nothing is resumed."""


class DryRun:
    """Goes through everything once, quickly and without a trace: `batches` batches of training, then of each
    evaluation.

    One epoch is run, whatever the limits given to `run`, and each evaluator of the trainer (`Evaluate`) once at its
    end, whenever it is run else. Checkpoint neither saves nor resumes, loggers write nothing and call no server,
    whatever the order of attaching; only a Checkpoint that is attached before DryRun still wants a directory without
    checkpoints, as it always does. A warning in the log tells what is left out. What of a user's own writes files can
    ask `engine.state.dry_run`, or have a method `mute()`, which is called before the run is set up.

    Raises TypeError and ValueError for a number of batches that is none.
    """

    same_on_ranks = ("batches",)

    def __init__(self, batches: int = 1) -> None:
        if as_whole(batches) is None:
            raise TypeError(f"DryRun takes a whole number of batches, but got {batches!r}")
        if batches < 1:
            raise ValueError(f"DryRun needs at least 1 batch, but got {batches}")
        self.batches = int(batches)
        self._muted: dict[str, None] = {}

    def refuses(self, other: Any) -> str | None:
        return "one dry run is enough" if isinstance(other, DryRun) else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        self._shorten(engine)
        engine.add_event_handler(Events.STARTED, self._tell, order=Order.LIMITS)

    def attach_to_evaluator(self, engine: Engine[Any, Any]) -> None:
        """Shortens the evaluation, and keeps the evaluator's own handlers from writing, too."""
        if not engine.find_handlers(DryRun):
            self._shorten(engine)
            self._mute(engine)

    def _shorten(self, engine: Engine[Any, Any]) -> None:
        engine.state.dry_run = True
        engine.setup.add(Stage.DEVICE, functools.partial(self._mute, engine), each_run=True, owner=self)
        engine.setup.add(Stage.DATA, functools.partial(self._limit_data, engine))
        engine.add_event_handler(Events.STARTED, self._limit_run, order=Order.LIMITS)

    def _mute(self, engine: Engine[Any, Any]) -> None:
        for handler in engine.handlers.values():
            if isinstance(handler, Mutable):
                handler.mute()
                self._muted[type(handler).__name__] = None
            elif isinstance(handler, Evaluate):
                _run_at_end_of_epoch(engine, handler)

    def _limit_data(self, engine: Engine[Any, Any]) -> None:
        # Added so late, it comes after other limits: half of the data is half of all of it.
        engine.data_setup.add(DataStage.LIMIT, self._limited, owner=self)

    def _limited(self, data: Any) -> Any:
        # What can't begin anew is ended by the limits of the run alone.
        return data if data is None or isinstance(data, Iterator) else LimitedData(data, self.batches)

    def _limit_run(self, engine: Engine[Any, Any]) -> None:
        state = engine.state
        given = state.max_epochs, state.max_iters
        epochs = state.epoch if engine.cursor.epoch_open else state.epoch + 1
        iterations = state.iteration + self.batches
        state.max_epochs = epochs if state.max_epochs is None else min(state.max_epochs, epochs)
        state.max_iters = iterations if state.max_iters is None else min(state.max_iters, iterations)

        def put_back() -> None:
            state.max_epochs, state.max_iters = given
            once.remove()

        once = engine.add_event_handler(Events.CLOSED, put_back)

    def _tell(self) -> None:
        if dist.rank() == 0:
            number = "1 batch" if self.batches == 1 else f"{self.batches} batches"
            silent = f"; left out, as if not attached: {', '.join(self._muted)}" if self._muted else ""
            logger.warning("dry run: one epoch of %s, and %s of each evaluation%s", number, number, silent)


def _run_at_end_of_epoch(engine: Engine[Any, Any], evaluation: Evaluate) -> None:
    events: list[Any] = [table.event for table in engine.tables()]
    if engine.updates:
        events += UpdateEvents
    for event in events:
        for function in (evaluation.evaluate, evaluation.evaluate_at):
            if engine.has_event_handler(function, event):
                engine.remove_event_handler(function, event)
    event = Events.EPOCH_COMPLETED
    engine.add_event_handler(event, evaluation.evaluate_at, event, order=Order.EVALUATION)
