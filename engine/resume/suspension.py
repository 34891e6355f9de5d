"""A run that was stopped among the handlers of an event: where, and how the next run goes on there.

An engine that runs inside a handler (an evaluation in the course of training) may take minutes. An interrupt stops it
after its running iteration, and with it the engine around it; the handlers that had run do not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leyden.engine.events.dispatch import Entry, Table
from leyden.engine.events.names import Events
from leyden.engine.events.signatures import describe_handler
from leyden.engine.stopping.stops import Stop

GOES_ON_AT = frozenset(
    {
        Events.STARTED,
        Events.EPOCH_STARTED,
        Events.ITERATION_COMPLETED,
        Events.TERMINATE_SINGLE_EPOCH,
        Events.EPOCH_COMPLETED,
        Events.COMPLETED,
    }
)
"""Events among whose handlers a run can stop and go on. Not in the midst of an iteration, whose batch would be lost."""


@dataclass(frozen=True, eq=False)
class Suspension:
    """The handler that was stopped: the `index`-th of the event. `terminated`: the run was ending by `terminate`.

    No two are equal: a handler that is stopped once more has come further.
    """

    event: Events
    index: int
    handler: str
    terminated: bool = False
    requests: frozenset[Stop] = frozenset()
    """What else this rank had been asked, which takes effect when the event is done."""

    @classmethod
    def at(cls, table: Table, entry: Entry, *, terminated: bool, requests: frozenset[Stop]) -> Suspension:
        assert isinstance(table.event, Events)
        place = table.entries.index(entry)
        return cls(table.event, place, describe_handler(entry.function), terminated, requests)

    def state_dict(self) -> dict[str, Any]:
        """What all ranks share of it."""
        return {
            "event": self.event.name,
            "index": self.index,
            "handler": self.handler,
            "terminated": self.terminated,
        }

    @classmethod
    def of(cls, state_dict: Mapping[str, Any], requests: frozenset[Stop] = frozenset()) -> Suspension:
        return cls(
            Events[state_dict["event"]],
            state_dict["index"],
            state_dict["handler"],
            state_dict["terminated"],
            requests,
        )

    def find(self, table: Table) -> int:
        """Where that handler stands now. Raises ValueError if it is not attached."""
        names = [describe_handler(entry.function) for entry in table.entries]
        if self.index < len(names) and names[self.index] == self.handler:
            return self.index
        if self.handler not in names:
            raise ValueError(
                f"the run was stopped within {self.handler}, at {self.event}, and has to go on there, but that event "
                f"has: {', '.join(names) or 'no handler'}. Attach the handlers that the stopped run had"
            )
        return names.index(self.handler)
