"""The states of a rank as they are saved: its own, and those that it carries for ranks of an earlier run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from leyden.metrics.states import Declaration, StateValue

CARRIED = "carried."
"""With a number, before the names of states in what is saved: they are those of another rank, which this one carries.
"""


def saved(
    contributions: Sequence[Mapping[str, StateValue]], copied: Callable[[str, StateValue], Any]
) -> dict[str, Any]:
    """All of them, the first being the rank's own; `copied(name, value)` is what is saved of a state."""
    copies: dict[str, Any] = {}
    for place, states in enumerate(contributions):
        prefix = f"{CARRIED}{place - 1}." if place else ""
        copies |= {prefix + name: copied(name, value) for name, value in states.items()}
    return copies


def split_carried(saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A saved state's own part, and those that it carried."""
    own: dict[str, Any] = {}
    carried: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in saved.items():
        if name.startswith(CARRIED):
            place, _, state = name.removeprefix(CARRIED).partition(".")
            carried[int(place)][state] = value
        else:
            own[name] = value
    return own, list(carried.values())


def check_names(
    parts: Sequence[Mapping[str, Any]], declared: Collection[str], later: Collection[str], kind: str
) -> None:
    """Raises ValueError for states that are another metric's; those that came `later` may be missing."""
    needed = [name for name in declared if name not in later]
    for states in parts:
        if not set(needed) <= states.keys() <= set(declared):
            raise ValueError(f"{kind} has the states {', '.join(needed)}, but was given {', '.join(states)}")


def all_parts(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What several ranks saved: the own part of each, and those that it carried."""
    return [part for state in states for own, carried in [split_carried(state)] for part in (own, *carried)]


def merged(states: Sequence[Mapping[str, Any]], declarations: Mapping[str, Declaration]) -> dict[str, Any]:
    """One state of those that several ranks saved, where each can be merged."""
    return {
        name: declaration.merge([state.get(name, declaration.default) for state in states])
        for name, declaration in declarations.items()
    }
