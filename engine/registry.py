"""What an engine knows of its handlers: which listens to which event, in which order, and what is attached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from leyden.engine.dispatch import Entry, Handler, RemovableEventHandle, Table, describe_handler, leading_arguments
from leyden.engine.events import (
    COUNTERS,
    AnyEvent,
    Event,
    EventEnum,
    Events,
    EventsList,
    FilteredEvent,
    UpdateEvents,
)
from leyden.engine.filters import Filter
from leyden.engine.state import State

F = TypeVar("F", bound=Handler)


class Order(IntEnum):
    """Where a handler stands among those of one event; a user's own come as DEFAULT, in the order of adding."""

    METRICS = -10
    EVALUATION = -5
    DEFAULT = 0
    STOPPERS = 5
    SAVERS = 10
    """Loggers and savers, which shall see what all others did."""


@runtime_checkable
class Attachable(Protocol):
    """A handler object."""

    def attach(self, engine: Any) -> Any: ...


@runtime_checkable
class Selective(Protocol):
    """A handler that can't work beside some others."""

    def refuses(self, other: Any) -> str | None:
        """Why the other handler can't be attached to the same engine, and what to do; None if it can."""


@runtime_checkable
class PerRank(Protocol):
    """A handler with a state that each rank has for itself, beside what `state_dict` gives, which all share."""

    def rank_state_dict(self) -> dict[str, Any]:
        """Plain data and tensors; empty if there is nothing."""

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Goes on from the states of all ranks that were saved, in their order; called after `load_state_dict`.

        Of as many as there are ranks now, each takes its own, and no other is there (None). Of another number, each
        is there, and the ranks have to share them out: nothing may be lost or count twice.
        """


class Registry:
    """The handlers of an engine. `Engine` is one; the loop itself is there."""

    state: State

    def __init__(self) -> None:
        self.handlers: dict[str, Attachable] = {}
        """What `attach` attached, by the name under which its state is saved."""
        self._tables: dict[Event, Table] = {event: Table(self, event) for event in Events}
        self._counters = dict(COUNTERS)
        self._update_tables: list[dict[Event, Table]] = []
        self._update_handlers: list[tuple[Event, Callable[[Table], Entry], list[tuple[Table, Entry]]]] = []
        self.state_dict_user_keys: list[str] = []
        """Attributes of the state that a user sets and wants saved."""
        self._metric_sources: list[Callable[[], Iterable[str]]] = []
        self._handler_states: dict[str, Any] = {}  # loaded before their handlers were attached
        self._rank_states: dict[str, list[Any]] = {}  # likewise, of what each rank has for itself

    # -- events ----------------------------------------------------------------------------------------------

    def register_events(self, *events: EventEnum | str, event_to_attr: dict[Any, str] | None = None) -> None:
        """Makes events of one's own known to this engine, to be fired with `fire_event`.

        `event_to_attr` names the state's attribute that an event counts (made as 0 if it is not there), so that it can
        be filtered. Raises TypeError for what is neither an EventEnum member nor a string, ValueError for a name taken.
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

    def add_event_handler(
        self, event: AnyEvent, handler: Handler, *args: Any, order: int = Order.DEFAULT, **kwargs: Any
    ) -> RemovableEventHandle:
        """Adds a handler; it is called as `handler(engine, *args, **kwargs)`.

        The engine is passed only where the handler has a required positional parameter left for it. Handlers of an
        event run by `order`, then as they were added.

        Raises ValueError for an event this engine does not know and for a filter on an event without a count, TypeError
        for a handler that can't be called so.
        """
        parts = event.events if isinstance(event, EventsList) else (event,)
        places: list[tuple[Table, Entry]] = []
        for key, rule in [self._resolve(part) for part in parts]:
            make = partial(self._entry, handler, args, kwargs, rule, order)
            if isinstance(key, UpdateEvents):
                places.extend((tables[key], make(tables[key])) for tables in self._update_tables)
                self._update_handlers.append((key, make, places))
            else:
                places.append((self._tables[key], make(self._tables[key])))
        for table, entry in places:
            table.add(entry)
        return RemovableEventHandle(places)

    def on(self, event: AnyEvent, *args: Any, order: int = Order.DEFAULT, **kwargs: Any) -> Callable[[F], F]:
        """Decorator form of `add_event_handler`."""

        def add(handler: F) -> F:
            self.add_event_handler(event, handler, *args, order=order, **kwargs)
            return handler

        return add

    def has_event_handler(self, handler: Handler, event: AnyEvent | None = None) -> bool:
        """True if the handler listens to the event, or to any event."""
        return bool(self._find(handler, event))

    def remove_event_handler(self, handler: Handler, event: AnyEvent) -> None:
        """Removes the handler from the event. Raises ValueError if it is not there."""
        found = self._find(handler, event)
        if not found:
            raise ValueError(f"{describe_handler(handler)} does not listen to {event} on this engine")
        for table, entry in found:
            table.remove([entry])

    def fire_event(self, event: Event) -> None:
        """Runs the handlers of an event now; for events of one's own."""
        key, rule = self._resolve(event)
        if rule is not None or isinstance(key, UpdateEvents):
            raise ValueError(f"fire_event takes an event of the engine without a filter, but got {event}")
        counter = self._counters.get(key)
        count = 0 if counter is None else getattr(self.state, counter)
        self._tables[key].fire_at(count)

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
        parts = event.events if isinstance(event, EventsList) else (event,)
        resolved = [self._resolve(part) for part in parts]
        if strange := [str(key) for key, _ in resolved if key not in tables]:
            raise ValueError(f"{', '.join(strange)} is no event of an update; it has: {', '.join(map(str, tables))}")
        places = [(tables[key], self._entry(handler, args, kwargs, rule, order, tables[key])) for key, rule in resolved]
        for table, entry in places:
            table.add(entry)
        return RemovableEventHandle(places)

    def adopt_update(self, tables: dict[Event, Table]) -> None:
        """Lets those who listen to the engine's updates hear a new one too."""
        self._update_tables.append(tables)
        for key, make, places in self._update_handlers:
            if any(entry in table.entries for table, entry in places if table.event is key):
                places.append((tables[key], make(tables[key])))
                tables[key].add(places[-1][1])

    def _find(self, handler: Handler, event: AnyEvent | None) -> list[tuple[Table, Entry]]:
        if event is None:
            tables = [*self._tables.values(), *(table for each in self._update_tables for table in each.values())]
        else:
            parts = event.events if isinstance(event, EventsList) else (event,)
            tables = [table for part in parts for table in self._tables_of(self._resolve(part)[0])]
        return [(table, entry) for table in tables for entry in table.entries if entry.function == handler]

    def _tables_of(self, key: Event) -> list[Table]:
        if isinstance(key, UpdateEvents):
            return [tables[key] for tables in self._update_tables]
        return [self._tables[key]]

    # -- handlers --------------------------------------------------------------------------------------------

    def attach(self, *handlers: Attachable) -> None:
        """Calls `handler.attach(engine)` for each and remembers it; its state is part of `state_dict` from then on.

        Raises TypeError for what has no `attach`, ValueError for a handler that is attached already, and for two that
        can't work together (`refuses`).
        """
        for handler in handlers:
            if isinstance(handler, type):
                name = handler.__name__
                raise TypeError(f"the class {name} has no attach(engine) to call; attach an object: {name}(...)")
            if not isinstance(handler, Attachable):
                raise TypeError(
                    f"{handler!r} has no attach(engine); a plain function is added by add_event_handler or on"
                )
            if any(handler is other for other in self.handlers.values()):
                raise ValueError(f"this {type(handler).__name__} is attached to this engine already")
            self._check_company(handler)
            handler.attach(self)
            name = self._name_of(handler)
            self.handlers[name] = handler
            if name in self._handler_states and hasattr(handler, "load_state_dict"):
                handler.load_state_dict(self._handler_states.pop(name))
            if name in self._rank_states and isinstance(handler, PerRank):
                handler.load_rank_state_dicts(self._rank_states.pop(name))

    def _check_company(self, handler: Attachable) -> None:
        for other in self.handlers.values():
            for one, another in ((handler, other), (other, handler)):
                reason = one.refuses(another) if isinstance(one, Selective) else None
                if reason is not None:
                    names = f"{type(one).__name__} and {type(another).__name__}"
                    raise ValueError(f"{names} can't both be attached to one engine: {reason}")

    def _name_of(self, handler: Attachable) -> str:
        kind = type(handler).__name__
        same = sum(1 for other in self.handlers.values() if type(other).__name__ == kind)
        return kind if same == 0 else f"{kind}-{same + 1}"

    def load_handler_states(self, states: dict[str, Any]) -> None:
        """Gives each attached handler its saved state; the states of others wait until they are attached."""
        self._handler_states = dict(states)
        for name, handler in self.handlers.items():
            if name in self._handler_states and hasattr(handler, "load_state_dict"):
                handler.load_state_dict(self._handler_states.pop(name))

    def load_handler_rank_states(self, states: dict[str, list[Any]]) -> None:
        """The same for what each rank has for itself: of each handler, the states of all ranks that were saved."""
        self._rank_states = dict(states)
        for name, handler in self.handlers.items():
            if name in self._rank_states and isinstance(handler, PerRank):
                handler.load_rank_state_dicts(self._rank_states.pop(name))

    def tables(self) -> list[Table]:
        """The events of the engine with their handlers."""
        return list(self._tables.values())

    def find_handlers(self, kind: type[Any]) -> list[Any]:
        """The attached handlers of a class."""
        return [handler for handler in self.handlers.values() if isinstance(handler, kind)]

    # -- names of metrics ------------------------------------------------------------------------------------

    def declare_metrics(self, *sources: str | Callable[[], Iterable[str]]) -> None:
        """Says which names will come up in `state.metrics`: a name, or a function that gives names when a run starts.

        Handlers that watch a metric can so tell a misspelt name at the start of a run.
        """
        for source in sources:
            self._metric_sources.append(partial(list, (source,)) if isinstance(source, str) else source)

    def metric_names(self) -> list[str]:
        """The names declared on this engine, and those that are in `state.metrics` now."""
        names = dict.fromkeys(name for source in self._metric_sources for name in source())
        return sorted({*names, *self.state.metrics})

    def require_metric(self, name: str, who: str) -> None:
        """Raises ValueError if no metric of that name will come up; `who` is the handler that watches it."""
        names = self.metric_names()
        if name not in names:
            raise ValueError(
                f'{who} watches "{name}", but the engine has: {", ".join(names) or "no metric"}. A metric that a '
                f'handler of your own puts into state.metrics is made known by engine.declare_metrics("{name}")'
            )
