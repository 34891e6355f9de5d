"""From an event to its handlers: order, filters and arguments are settled when a handler is added; firing walks a
list.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from leyden.engine.events import Event
from leyden.engine.filters import NEVER, Filter
from leyden.engine.stopping import Suspended

Handler = Callable[..., Any]


def describe_handler(handler: Handler) -> str:
    """The name a reader would look for: `EarlyStopping.check`, `train.<locals>.note`."""
    owner = getattr(handler, "__self__", None)
    if owner is not None and not inspect.ismodule(owner) and not inspect.isclass(owner):
        return f"{type(owner).__name__}.{handler.__name__}"
    function = getattr(handler, "func", handler)
    return str(getattr(function, "__qualname__", type(function).__name__))


def leading_arguments(
    handler: Handler, offered: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """How many of the offered arguments (the engine, then what the event brings) the handler takes before its own
    `args`.

    An offered argument goes only into a required positional parameter (or into `*args`), never into one with a default.

    Raises TypeError if no number of them makes a valid call.
    """
    if not callable(handler):
        raise TypeError(
            f"a handler must be callable, but {handler!r} is not; objects with attach() go to engine.attach()"
        )
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        raise TypeError(
            f"the parameters of {describe_handler(handler)} can't be read; wrap it: lambda engine: ..."
        ) from None
    room = 0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            room = len(offered)
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        if parameter.default is not parameter.empty or parameter.name in kwargs:
            break
        room += 1
    for taken in range(min(room, len(offered)), -1, -1):
        try:
            signature.bind(*offered[:taken], *args, **kwargs)
        except TypeError:
            continue
        return tuple(offered[:taken])
    given = ", ".join([*(repr(arg) for arg in args), *(f"{name}=..." for name in kwargs)]) or "nothing"
    names = " and ".join(type(item).__name__ if not isinstance(item, str) else item for item in offered)
    raise TypeError(
        f"{describe_handler(handler)}{signature} can't be called as a handler here: "
        f"the event offers {names}, and {given} was given with it"
    )


def check_process(process: Any) -> None:
    """Raises TypeError unless it can be called with (engine, batch); a model is called with neither."""
    if isinstance(process, nn.Module):
        name = type(process).__name__
        raise TypeError(
            f"an engine needs a process function of (engine, batch), but got the model {name} itself: "
            f"supervised_trainer({name.lower()}, optimizer, loss_fn) trains it, supervised_evaluator({name.lower()}) "
            "evaluates it, and a step of one's own calls it"
        )
    if not callable(process):
        raise TypeError(f"an engine needs a process function of (engine, batch), but got {process!r}")
    try:
        signature = inspect.signature(process)
    except (TypeError, ValueError):
        return  # built-ins may not tell their parameters
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"the process function must take (engine, batch), but is {describe_handler(process)}{signature}: {error}"
        ) from None


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


class Table:
    """The handlers of one event in the order they run, and the next count at which any of them may.

    The loop asks only `count >= table.due`: one comparison for an event that nobody listens to, and for one whose
    handlers all wait for a later count.
    """

    __slots__ = ("due", "engine", "entries", "event", "last", "source")

    def __init__(self, engine: Any, event: Event, source: Any = None) -> None:
        self.engine = engine
        self.event = event
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
        """Finds the next count anew, from what its entries wait for."""
        self.due = min((entry.due for entry in self.entries), default=NEVER)

    def rearm(self, wake: bool = True) -> None:
        """Forgets how far the count had come, as it may have been set back; `wake` also wakes who sleeps."""
        for entry in self.entries:
            if wake or entry.filter is not None:
                entry.due = 0
        self.settle()

    def fire_at(self, count: int) -> None:
        """Fires at a count that may have gone back since the last time: one that a user keeps."""
        if count < self.last:
            self.rearm()
        self.last = count
        if count >= self.due:
            self.fire(count)

    def fire(self, count: int, event_args: tuple[Any, ...] = ()) -> None:
        """Runs the handlers that are due at this count."""
        due = NEVER
        entries = self.entries
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

    def fire_from(self, index: int, count: int) -> None:
        """Runs those handlers that are due, from the `index`-th on: the ones before it have run."""
        before = self.entries[:index]
        dues = [entry.due for entry in before]
        for entry in before:
            entry.due = NEVER
        try:
            self.fire(count)
        finally:
            for entry, due in zip(before, dues, strict=True):
                entry.due = due
            self.settle()

    def fire_all(self) -> list[Exception | SystemExit]:
        """Runs every handler, also after one failed, and gives back what they raised: for the event that cleans up."""
        errors: list[Exception | SystemExit] = []
        for entry in self.entries:
            try:
                entry.function(*entry.args, **entry.kwargs)
            except (Exception, SystemExit) as error:  # who ends the process lets the others clean up, too
                errors.append(error)
        return errors


class RemovableEventHandle:
    """What adding a handler gives back: removes it, or lets it sleep. A context manager: the handler is removed at its
    end.
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
