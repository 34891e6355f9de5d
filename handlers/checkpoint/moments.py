"""The moments of a run at which it can be saved, and how one is told from another."""

from __future__ import annotations

from typing import Any, TypeAlias

from leyden.engine import Engine, Events, EventsList, FilteredEvent, UpdateEvents
from leyden.engine.events import AnyEvent
from leyden.engine.suspension import Suspension

STEP_UNDONE: tuple[object, ...] = (
    *(Events.STARTED, Events.EPOCH_STARTED, Events.GET_BATCH_STARTED, Events.GET_BATCH_COMPLETED),
    *(Events.DATALOADER_STOP_ITERATION, Events.ITERATION_STARTED, Events.EXCEPTION_RAISED),
    *(event for event in UpdateEvents if event is not UpdateEvents.STEP_COMPLETED),
)
"""Events between which and the end of an iteration something is still to be done: no state to go on from."""

Place: TypeAlias = tuple[int, int, bool, Suspension | None]


def place_of(engine: Engine[Any, Any]) -> Place:
    """Epoch, iteration, whether the epoch is open, and where the run was stopped among the handlers of an event: equal
    for two moments only if nothing was done between them.
    """
    return engine.state.epoch, engine.state.iteration, engine.cursor.epoch_open, engine.suspended


def check_event(event: AnyEvent) -> None:
    """Raises ValueError for an event at which no state can be saved to go on from."""
    for part in event if isinstance(event, EventsList) else (event,):
        key = part.event if isinstance(part, FilteredEvent) else part
        if key in STEP_UNDONE:
            raise ValueError(
                f"Checkpoint can't save at {key}, in the midst of an iteration: no run could go on from there. Take "
                "Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED or UpdateEvents.STEP_COMPLETED, filtered at will"
            )
