"""The names of events, and how events are filtered and joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from leyden.engine.events.filters import EventFilter, Filter


class EventEnum(Enum):
    """Base of all enums of events, also of a user's own: `class MyEvents(EventEnum): LOSS_READY = "loss_ready"`.

    Calling a member filters it (see `Filter`); `|` joins events; neither changes the member itself.
    """

    def __call__(
        self,
        event_filter: EventFilter | None = None,
        every: int | None = None,
        once: int | Sequence[int] | None = None,
        before: int | None = None,
        after: int | None = None,
    ) -> FilteredEvent:
        return FilteredEvent(self, Filter.of(event_filter, every, once, before, after))

    def __or__(self, other: AnyEvent) -> EventsList:
        return EventsList.join(self, other)

    def __ror__(self, other: str) -> EventsList:
        return EventsList.join(other, self)

    # By identity: Enum's own hash is a Python function over the name, and a step looks events up.
    __hash__ = object.__hash__

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


@dataclass(frozen=True, slots=True)
class FilteredEvent:
    """An event and the counts at which its handler runs."""

    event: EventEnum
    filter: Filter

    def __or__(self, other: AnyEvent) -> EventsList:
        return EventsList.join(self, other)

    def __ror__(self, other: str) -> EventsList:
        return EventsList.join(other, self)

    def __str__(self) -> str:
        return f"{self.event}({self.filter})"


@dataclass(frozen=True, slots=True)
class EventsList:
    """Several events that one handler listens to; made by `Events.STARTED | Events.COMPLETED`."""

    events: tuple[EventEnum | FilteredEvent | str, ...]

    @classmethod
    def join(cls, *parts: AnyEvent) -> EventsList:
        return cls(tuple(event for part in parts for event in events_in(part)))

    def __or__(self, other: AnyEvent) -> EventsList:
        return EventsList.join(self, other)

    def __ror__(self, other: str) -> EventsList:
        return EventsList.join(other, self)

    def __iter__(self) -> Iterator[EventEnum | FilteredEvent | str]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)


Event: TypeAlias = EventEnum | str
AnyEvent: TypeAlias = EventEnum | FilteredEvent | EventsList | str


def events_in(event: AnyEvent) -> tuple[EventEnum | FilteredEvent | str, ...]:
    """The joined events, each with its filter."""
    return event.events if isinstance(event, EventsList) else (event,)


def without_filter(part: EventEnum | FilteredEvent | str) -> Event:
    """The event without its filter."""
    return part.event if isinstance(part, FilteredEvent) else part


class Events(EventEnum):
    """The events of every engine, in the order of a run.

    What a filter counts: epochs for STARTED, EPOCH_* and COMPLETED; iterations for GET_BATCH_*,
    DATALOADER_STOP_ITERATION and ITERATION_*, where an event before the step counts the iteration it belongs to. The
    others have no count.
    """

    STARTED = "started"
    """A call of `run` begins; its setup is done."""
    EPOCH_STARTED = "epoch_started"
    GET_BATCH_STARTED = "get_batch_started"
    GET_BATCH_COMPLETED = "get_batch_completed"
    """`state.batch` is there; a handler may alter it."""
    DATALOADER_STOP_ITERATION = "dataloader_stop_iteration"
    """The data ended before the epoch did; it is begun anew unless a handler calls `set_data`."""
    ITERATION_STARTED = "iteration_started"
    ITERATION_COMPLETED = "iteration_completed"
    """`state.output` is there."""
    SAVE_REQUESTED = "save_requested"
    """After an iteration: somebody asked for a checkpoint by `request_save`."""
    TERMINATE_SINGLE_EPOCH = "terminate_single_epoch"
    EPOCH_COMPLETED = "epoch_completed"
    INTERRUPT = "interrupt"
    TERMINATE = "terminate"
    COMPLETED = "completed"
    """The run ended by its limits or by `terminate`."""
    EXCEPTION_RAISED = "exception_raised"
    """Handlers get (engine, exception); afterwards the exception reaches the caller of `run`."""
    CLOSED = "closed"
    """Last of all, always: after success, terminate, interrupt and errors."""


class UpdateEvents(EventEnum):
    """The events of an `Update`, in the order of a step. Filters count its optimizer steps, beginning with the first as
    1.

    Handlers get (engine, update), or only the engine, or nothing, as their parameters ask.
    """

    FORWARD_STARTED = "forward_started"
    FORWARD_COMPLETED = "forward_completed"
    BACKWARD_STARTED = "backward_started"
    BACKWARD_COMPLETED = "backward_completed"
    GRADIENTS_READY = "gradients_ready"
    """The window is closed, its gradients are summed, synchronised and unscaled; the optimizer comes next."""
    STEP_COMPLETED = "step_completed"
    STEP_SKIPPED = "step_skipped"
    """The optimizer did not step (fp16 overflow, say); the gradients are thrown away."""


COUNTERS: dict[Event, str] = {
    Events.STARTED: "epoch",
    Events.EPOCH_STARTED: "epoch",
    Events.EPOCH_COMPLETED: "epoch",
    Events.COMPLETED: "epoch",
    Events.GET_BATCH_STARTED: "iteration",
    Events.GET_BATCH_COMPLETED: "iteration",
    Events.DATALOADER_STOP_ITERATION: "iteration",
    Events.ITERATION_STARTED: "iteration",
    Events.ITERATION_COMPLETED: "iteration",
}
"""The attribute of the state that each counted event of an engine counts."""
