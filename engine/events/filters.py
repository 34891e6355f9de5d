"""When a handler runs: a rule over an event's count, resolved once, so that a closed gate costs the loop nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from leyden.engine.values.whole_numbers import NEVER, whole_number

EventFilter = Callable[[Any, int], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """The counts at which a handler runs. Counts start at 1; made by calling an event, `Events.X(every=50)`.

    `every=n`: counts divisible by n, whatever the bounds. `once=n` or a sequence: just these counts. `before=n`,
    `after=n`: counts smaller, larger than n; together with `every` they bound it. `event_filter(engine, count)`: any
    rule, asked each time.

    Raises TypeError or ValueError for numbers that are not positive, or rules that exclude each other.
    """

    every: int | None = None
    once: tuple[int, ...] | None = None
    before: int | None = None
    after: int | None = None
    event_filter: EventFilter | None = None

    @classmethod
    def of(
        cls,
        event_filter: EventFilter | None = None,
        every: int | None = None,
        once: int | Sequence[int] | None = None,
        before: int | None = None,
        after: int | None = None,
    ) -> Filter:
        bounds = before is not None or after is not None
        kinds = [event_filter is not None, once is not None, every is not None or bounds]
        if sum(kinds) != 1:
            raise ValueError(
                "an event takes one rule: event_filter=, once=, or every= with before= and after=; "
                f"found event_filter={event_filter!r}, {every=}, {once=}, {before=}, {after=}"
            )
        if event_filter is not None and not callable(event_filter):
            raise TypeError(f"event_filter must be a function of (engine, count), but is {event_filter!r}")
        counts: tuple[int, ...] | None = None
        if once is not None:
            several = isinstance(once, Iterable) and not isinstance(once, str) and getattr(once, "ndim", 1) > 0
            numbers: list[Any] = list(once) if several else [once]  # type: ignore[arg-type]
            if not numbers:
                raise ValueError("once of an event names no count: give a number or a sequence of numbers")
            counts = tuple(sorted({whole_number("once of an event", number, 1) for number in numbers}))
        return cls(
            every=None if every is None else whole_number("every of an event", every, 1),
            once=counts,
            before=None if before is None else whole_number("before of an event", before, 0),
            after=None if after is None else whole_number("after of an event", after, 0),
            event_filter=event_filter,
        )

    @property
    def open(self) -> bool:
        """True if the handler runs at every count."""
        return self == Filter(every=1)

    def next_from(self, count: int) -> int:
        """The first count, `count` itself included, at which the handler may run; NEVER if there is none."""
        if self.event_filter is not None:
            return count
        if self.once is not None:
            place = bisect_left(self.once, count)
            return self.once[place] if place < len(self.once) else NEVER
        first = max(count, self.after + 1) if self.after is not None else count
        if self.every is not None:
            first = max(1, -(-first // self.every)) * self.every
        return NEVER if self.before is not None and first >= self.before else first

    def admits(self, engine: Any, count: int) -> bool:
        """True if the handler runs at this count."""
        if self.event_filter is not None:
            return bool(self.event_filter(engine, count))
        return self.next_from(count) == count

    def __str__(self) -> str:
        if self.event_filter is not None:
            return f"event_filter={getattr(self.event_filter, '__qualname__', self.event_filter)}"
        once = self.once[0] if self.once is not None and len(self.once) == 1 else self.once
        rules = {"every": self.every, "once": once, "before": self.before, "after": self.after}
        return ", ".join(f"{name}={value}" for name, value in rules.items() if value is not None)
