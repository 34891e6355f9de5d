"""From an event to its handlers: order, filters and arguments are settled when one is added; firing walks a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from leyden.engine.events.filters import Filter
from leyden.engine.events.names import Event
from leyden.engine.events.signatures import Handler
from leyden.engine.stopping.stops import Suspended
from leyden.engine.values.whole_numbers import NEVER


class Entry:
    """One handler of one event, ready to be called."""

    __slots__ = ("args", "due", "event_args", "filter", "function", "kwargs", "order", "trailing")

    def __init__(
        self,
        function: Handler,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        filter: Filter | None,
        order: int,
        event_args: int = 0,
        trailing: tuple[Any, ...] = (),
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.filter = filter
        self.order = order
        self.event_args = event_args
        self.trailing = trailing
        self.due = 0


class Fired:
    """The event of an engine whose handlers run, or ran last."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event: Event | None = None


class Table:
    """The handlers of one event in the order they run, and the next count at which any of them may.

    The loop asks only `count >= table.due`: one comparison for an event that nobody listens to, and for one whose
    handlers all wait for a later count.
    """

    __slots__ = ("due", "engine", "entries", "event", "fired", "last", "source")

    def __init__(self, engine: Any, event: Event, source: Any = None) -> None:
        self.engine = engine
        self.event = event
        self.fired: Fired = engine.fired
        self.source = source
        self.entries: tuple[Entry, ...] = ()
        self.due = NEVER
        self.last = 0

    def add(self, entry: Entry) -> None:
        # Whoever is firing walks the old tuple to its end; a change shows from the next firing on.
        self.entries = tuple(sorted((*self.entries, entry), key=lambda each: each.order))
        self.due = min(self.due, entry.due)

    def remove(self, entries: Iterable[Entry]) -> None:
        gone = set(map(id, entries))
        self.entries = tuple(entry for entry in self.entries if id(entry) not in gone)
        self.settle()

    def settle(self) -> None:
        """Recomputes the next count from those that its entries wait for."""
        self.due = min((entry.due for entry in self.entries), default=NEVER)

    def rearm(self, wake: bool = True) -> None:
        """Forgets how far the count had come, as it may have been set back. `wake` also wakes handlers that sleep."""
        for entry in self.entries:
            if wake or entry.filter is not None:
                entry.due = 0
        self.settle()

    def fire_at(self, count: int) -> None:
        """Fires at a count kept by the user, which may have gone back since the last time."""
        if count < self.last:
            self.rearm()
        self.last = count
        if count >= self.due:
            self.fire(count)

    def fire(self, count: int, event_args: tuple[Any, ...] = ()) -> None:
        """Runs the handlers that are due at this count."""
        due = NEVER
        entries = self.entries
        self.fired.event = self.event
        try:
            for entry in entries:
                if count >= entry.due:
                    if entry.filter is not None:
                        # An entry that runs stays due at this count: an event may come several times at one count.
                        entry.due = entry.filter.next_from(count)
                        if entry.due != count or not entry.filter.admits(self.engine, count):
                            if entry.due < due:
                                due = entry.due
                            continue
                    if entry.event_args:
                        entry.function(*entry.args, *event_args[: entry.event_args], *entry.trailing, **entry.kwargs)
                    else:
                        entry.function(*entry.args, **entry.kwargs)
                if entry.due < due:
                    due = entry.due
        except Suspended as stop:
            stop.place = stop.place or (self, entry)
            raise
        self.due = due
        if self.entries is not entries:
            self.settle()

    def pass_over(self, count: int) -> None:
        """Skips this count, at which the handlers have run already."""
        for entry in self.entries:
            entry.due = max(entry.due, count + 1)
        self.settle()

    def fire_before(self, index: int, count: int) -> None:
        """Runs those handlers that are due, up to the one before the `index`-th."""
        self._fire_without(self.entries[index:], count)

    def fire_from(self, index: int, count: int) -> None:
        """Runs those handlers that are due, from the `index`-th on: the ones before it have run."""
        self._fire_without(self.entries[:index], count)

    def _fire_without(self, others: Sequence[Entry], count: int) -> None:
        dues = [entry.due for entry in others]
        for entry in others:
            entry.due = NEVER
        try:
            self.fire(count)
        finally:
            for entry, due in zip(others, dues, strict=True):
                entry.due = due
            self.settle()

    def fire_all(self, event_args: tuple[Any, ...] = ()) -> list[BaseException]:
        """Runs every handler, even after one has failed, and returns what they raised; for the events that clean up.

        A handler may raise the exception it was given, which does not count as a failure. KeyboardInterrupt and its
        like are raised at once.
        """
        if self.entries:
            self.fired.event = self.event
        errors: list[BaseException] = []
        for entry in self.entries:
            try:
                entry.function(*entry.args, *event_args[: entry.event_args], *entry.trailing, **entry.kwargs)
            except BaseException as error:
                if any(error is each for each in event_args):
                    continue
                if not isinstance(error, Exception | SystemExit):  # who ends the process lets the others clean up, too
                    raise
                errors.append(error)
        return errors


class RemovableEventHandle:
    """Returned when a handler is added: removes the handler, or puts it to sleep. As a context manager it removes the
    handler at the end.
    """

    def __init__(self, places: list[tuple[Table, Entry]]) -> None:
        self._places = places

    def remove(self) -> None:
        """Removes the handler from all events it was added to with this handle; a second call does nothing."""
        for table, entry in self._places:
            table.remove([entry])
        self._places.clear()

    def defer_until(self, count: int) -> None:
        """Lets the handler sleep until its event's count reaches `count`, or a run begins; until then it costs nothing.

        Called by the handler itself, to pace its work by what it finds (a progress bar by the clock, say).
        """
        for table, entry in self._places:
            entry.due = count
            table.settle()

    def __enter__(self) -> RemovableEventHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
