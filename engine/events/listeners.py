"""The handlers of an engine's events, and the order in which they are called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, TypeVar

from leyden.engine.events.dispatch import Entry, Fired, RemovableEventHandle, Table
from leyden.engine.events.filters import Filter
from leyden.engine.events.names import (
    COUNTERS,
    AnyEvent,
    Event,
    EventEnum,
    Events,
    FilteredEvent,
    UpdateEvents,
    events_in,
)
from leyden.engine.events.signatures import Handler, describe_handler, leading_arguments
from leyden.engine.state import State

F = TypeVar("F", bound=Handler)


class Order(IntEnum):
    """The place of a handler among those of one event. A user's own are DEFAULT, and run in the order they were
    added.
    """

    FIRST = -1_000_000
    LIMITS = -40
    """Handlers that set the limits of a run, before others read them."""
    SEEDS = -30
    """Handlers that seed the generators of a run, before others draw from them."""
    LOG_START = -20
    """Loggers at a run's start, before a user's handlers, which may log."""
    BEFORE_METRICS = -11
    METRICS = -10
    EVALUATION = -5
    DEFAULT = 0
    STOPPERS = 5
    LOGGERS = 9
    """Before SAVERS, so that a checkpoint stands for what was logged at its moment."""
    SAVERS = 10
    """Savers, which see what all others did."""
    AFTER_SAVERS = 11
    LAST = 1_000_000


class Listeners:
    """The events of an engine and the functions that listen to them."""

    def __init__(self) -> None:
        self.state = State()
        self.fired = Fired()
        self._uncounted: dict[Event, int] = {}  # how often an event of one's own was fired at a count of zero
        self._tables: dict[Event, Table] = {event: Table(self, event) for event in Events}
        self._counters = dict(COUNTERS)
        self._update_tables: list[dict[Event, Table]] = []
        self._update_handlers: list[tuple[Event, Callable[[Table], Entry], list[tuple[Table, Entry]]]] = []

    def register_events(self, *events: EventEnum | str, event_to_attr: dict[Any, str] | None = None) -> None:
        """Makes events of one's own known to this engine, to be fired with `fire_event`.

        `event_to_attr` names the attribute of the state that is an event's count (made as 0 if it is not there), so
        that it can be filtered. Who fires the event counts: `engine.state.episode += 1`, then `fire_event`.

        Raises TypeError for what is neither an EventEnum member nor a string, ValueError for a name taken.
        """
        counters = event_to_attr or {}
        for event in counters:
            if event not in events and event not in self._tables:
                raise ValueError(f"event_to_attr names {event!r}, which is not among the events to register: {events}")
        for event in events:
            if not isinstance(event, EventEnum | str):
                raise TypeError(f"an event must be a member of an EventEnum or a string, but is {event!r}")
            if not event or event in self._tables:
                raise ValueError(f"event {str(event)!r} can't be registered: the name is empty or taken on this engine")
        for event in events:
            self._tables[event] = Table(self, event)
        for event, attribute in counters.items():
            self._counters[event] = attribute
            if attribute not in vars(self.state):
                setattr(self.state, attribute, 0)

    def has_registered_events(self, *events: Event) -> bool:
        """Whether this engine knows all of these events."""
        return all(event in self._tables for event in events)

    def add_event_handler(
        self, event_name: AnyEvent, handler: Handler, *args: Any, order: int = Order.DEFAULT, **kwargs: Any
    ) -> RemovableEventHandle:
        """Adds a handler; it is called as `handler(engine, *args, **kwargs)`.

        The engine is passed only where the handler has a required positional parameter left for it. Handlers of an
        event run by `order`, then as they were added.

        Raises ValueError for an event this engine does not know and for a filter on an event without a count, TypeError
        for a handler that can't be called so, or of which a call would run nothing (async and generator functions).
        """
        places: list[tuple[Table, Entry]] = []
        for key, rule in [self._resolve(part) for part in events_in(event_name)]:
            make = partial(self._entry, handler, args, kwargs, rule, order)
            if isinstance(key, UpdateEvents):
                places.extend((tables[key], make(tables[key])) for tables in self._update_tables)
                self._update_handlers.append((key, make, places))
            else:
                places.append((self._tables[key], make(self._tables[key])))
        for table, entry in places:
            table.add(entry)
        return RemovableEventHandle(places)

    def on(self, event_name: AnyEvent, *args: Any, order: int = Order.DEFAULT, **kwargs: Any) -> Callable[[F], F]:
        """Decorator form of `add_event_handler`."""

        def add(handler: F) -> F:
            self.add_event_handler(event_name, handler, *args, order=order, **kwargs)
            return handler

        return add

    def has_event_handler(self, handler: Handler, event_name: AnyEvent | None = None) -> bool:
        """True if the handler listens to the event, or to any event."""
        return bool(self._find(handler, event_name))

    def remove_event_handler(self, handler: Handler, event_name: AnyEvent) -> None:
        """Removes the handler from the event. Raises ValueError if it is not there."""
        found = self._find(handler, event_name)
        if not found:
            raise ValueError(f"{describe_handler(handler)} does not listen to {event_name} on this engine")
        for table, entry in found:
            table.remove([entry])

    @property
    def last_event_name(self) -> Event | None:
        """The event whose handlers are running or ran last; events without handlers are not noted."""
        return self.fired.event

    def fire_event(self, event_name: Event) -> None:
        """Runs the handlers of an event now; for events of one's own."""
        key, rule = self._resolve(event_name)
        if rule is not None or isinstance(key, UpdateEvents):
            raise ValueError(f"fire_event takes an event of the engine without a filter, but got {event_name}")
        counter = self._counters.get(key)
        count = 0 if counter is None else getattr(self.state, counter)
        if count == 0 and counter is not None and not isinstance(key, Events):
            self._tell_uncounted(key, counter)
        self._tables[key].fire_at(count)

    def _tell_uncounted(self, event: Event, counter: str) -> None:
        waiting = next((entry for entry in self._tables[event].entries if entry.filter is not None), None)
        fired = self._uncounted[event] = self._uncounted.get(event, 0) + 1
        if fired == 2 and waiting is not None:
            warnings.warn(
                f"{event} was fired twice, but its count, state.{counter}, is still 0, so that "
                f"{event}({waiting.filter}) never comes to {describe_handler(waiting.function)}. Who fires an event "
                "counts it: "
                f"engine.state.{counter} += 1 before fire_event(...)",
                stacklevel=3,
            )

    def _resolve(self, event: AnyEvent) -> tuple[Event, Filter | None]:
        key, rule = (event.event, event.filter) if isinstance(event, FilteredEvent) else (event, None)
        if isinstance(key, UpdateEvents):
            if not self._update_tables:
                raise ValueError(
                    f"{key} is an event of an Update, and this engine has none: make Update(engine, ...) first"
                )
            return key, None if rule is not None and rule.open else rule
        if not isinstance(key, EventEnum | str) or key not in self._tables:
            known = ", ".join(str(each) for each in self._tables)
            if type(key).__module__.startswith("ignite."):
                raise ValueError(f"{key} is one of Ignite's own; import Events from leyden.engine, which has: {known}")
            raise ValueError(f"unknown event {str(key)!r}; this engine knows: {known}. Others: register_events() first")
        if rule is not None and key not in self._counters:
            raise ValueError(f"{key} has no count, so it can't be filtered by {rule}; register it with event_to_attr=")
        return key, None if rule is not None and rule.open else rule

    def _entry(
        self,
        handler: Handler,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rule: Filter | None,
        order: int,
        table: Table,
    ) -> Entry:
        """The handler as the table calls it: with what is known now, the engine and the update, and the exception to
        come.
        """
        if table.event is Events.EXCEPTION_RAISED:
            leading = leading_arguments(handler, (self, "the exception"), args, kwargs)
            if len(leading) == 2:
                return Entry(handler, (self,), kwargs, rule, order, event_args=1, trailing=args)
        else:
            offered = (self,) if table.source is None else (self, table.source)
            leading = leading_arguments(handler, offered, args, kwargs)
        return Entry(handler, (*leading, *args), kwargs, rule, order)

    def add_update_handler(
        self,
        tables: dict[Event, Table],
        event: AnyEvent,
        handler: Handler,
        *args: Any,
        order: int = Order.DEFAULT,
        **kwargs: Any,
    ) -> RemovableEventHandle:
        """Adds a handler to an event of one update only; `Update.add_event_handler` is its public form."""
        resolved = [self._resolve(part) for part in events_in(event)]
        if strange := [str(key) for key, _ in resolved if key not in tables]:
            raise ValueError(f"{', '.join(strange)} is no event of an update; it has: {', '.join(map(str, tables))}")
        places = [(tables[key], self._entry(handler, args, kwargs, rule, order, tables[key])) for key, rule in resolved]
        for table, entry in places:
            table.add(entry)
        return RemovableEventHandle(places)

    def adopt_update(self, tables: dict[Event, Table]) -> None:
        """Lets handlers that listen to the engine's updates hear a new one, too."""
        self._update_tables.append(tables)
        for key, make, places in self._update_handlers:
            if any(entry in table.entries for table, entry in places if table.event is key):
                places.append((tables[key], make(tables[key])))
                tables[key].add(places[-1][1])

    def _find(self, handler: Handler, event: AnyEvent | None) -> list[tuple[Table, Entry]]:
        if event is None:
            tables = [*self._tables.values(), *(table for each in self._update_tables for table in each.values())]
        else:
            tables = [table for part in events_in(event) for table in self._tables_of(self._resolve(part)[0])]
        return [(table, entry) for table in tables for entry in table.entries if entry.function == handler]

    def _tables_of(self, key: Event) -> list[Table]:
        if isinstance(key, UpdateEvents):
            return [tables[key] for tables in self._update_tables]
        return [self._tables[key]]

    def tables(self) -> list[Table]:
        """The events of the engine with their handlers."""
        return list(self._tables.values())
