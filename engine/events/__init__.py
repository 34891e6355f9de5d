"""Events: their names and filters, who listens to them, and how they reach those who do."""

from leyden.engine.events.dispatch import Entry, Fired, RemovableEventHandle, Table
from leyden.engine.events.listeners import Order
from leyden.engine.events.names import (
    COUNTERS,
    AnyEvent,
    EventEnum,
    Events,
    EventsList,
    FilteredEvent,
    UpdateEvents,
    events_in,
    without_filter,
)

__all__ = [
    "COUNTERS",
    "AnyEvent",
    "Entry",
    "EventEnum",
    "Events",
    "EventsList",
    "FilteredEvent",
    "Fired",
    "Order",
    "RemovableEventHandle",
    "Table",
    "UpdateEvents",
    "events_in",
    "without_filter",
]
