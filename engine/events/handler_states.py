"""Which saved state is whose: a handler is found again by its class and what tells it apart, wherever it stands in the
script.

A handler says what tells it apart by two tuples of names of its own attributes, which hold plain data:

- `told_apart_by`: what its state is about (the metric it watches, the update it works on); another one's state is of no
  use to it.
- `settings`: how it does it (a decay, a patience); they tell two apart that are about the same, and may change. It may
  also be a mapping, of the settings themselves.

`engine.attach(handler, name="slow")` tells apart what neither does.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

UNKNOWN_SETTING = "?"
"""Stands for what a handler is about as long as it does not know: it may then be about anything."""
NUMBERED = "-"
"""Between a class and a number: how states were named by the order of attaching, and are where nothing else tells."""

FORMER_NAMES = {"Schedule": {"update": "optimizer_of"}}
"""By class, what earlier versions called that which it is told apart by."""


@dataclass(frozen=True)
class Mark:
    """What a handler is known by. `told=False`: of no interest to a user who reads what changed."""

    kind: str
    name: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    told: bool = True

    @classmethod
    def of(cls, handler: Any, name: str | None) -> Mark:
        kind = type(handler)
        about = {key: plain_setting(getattr(handler, key)) for key in getattr(kind, "told_apart_by", ())}
        given = getattr(handler, "settings", ())
        settings = given if isinstance(given, Mapping) else {key: getattr(handler, key) for key in given}
        settings = {key: plain_setting(value) for key, value in settings.items()}
        return cls(kind.__name__, name, about, settings, getattr(kind, "told", True))

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state_dict(cls, saved: Mapping[str, Any]) -> Mark:
        """The mark that `state_dict` gave, of an earlier version too."""
        names = FORMER_NAMES.get(saved["kind"], {})
        return cls(**{**saved, "about": {names.get(key, key): value for key, value in saved["about"].items()}})

    def is_about(self, other: Mark) -> bool:
        """A state of the one may be of use to the other."""
        named = self.name is None or other.name is None or self.name == other.name
        return named and self.kind == other.kind and _agree(self.about, other.about)

    def describe(self, keys: Iterable[str] | None = None) -> str:
        """`EMA(decay=0.9)`; `keys`: which of what tells it apart is shown, else all that it is about."""
        if self.name is not None:
            return self.name
        shown = [
            setting_in_words(value)
            for key, value in self.about.items()
            if value is not None and (keys is None or key in keys)
        ]
        shown += [
            f"{key}={setting_in_words(value)}"
            for key, value in self.settings.items()
            if keys is not None and key in keys
        ]
        return f"{self.kind}({', '.join(shown)})" if shown else self.kind


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        value == other[key] or UNKNOWN_SETTING in (value, other[key]) for key, value in one.items()
    )


def labels_of(marks: Sequence[Mark]) -> list[str]:
    """A name for each, by class and as much of what tells it apart as is needed; numbered where nothing does."""
    labels = []
    for mark in marks:
        same = [each for each in marks if each.kind == mark.kind and each.name is None]
        about = [key for key in mark.about if any(each.about.get(key) != mark.about[key] for each in same)]
        rivals = [each for each in same if each.about == mark.about]
        settings = [
            key for key in mark.settings if any(each.settings.get(key) != mark.settings[key] for each in rivals)
        ]
        labels.append(mark.describe([*about, *settings]))
    count: Counter[str] = Counter()
    unique = []
    for label in labels:
        count[label] += 1
        unique.append(label if count[label] == 1 else f"{label}{NUMBERED}{count[label]}")
    return unique


def find_twins(marks: Sequence[Mark]) -> Mark | None:
    """One of those that nothing tells apart, if there are any."""
    for place, mark in enumerate(marks):
        if any(mark == other for other in marks[:place]):
            return mark
    return None


def match(saved: Mapping[str, Mark], present: Sequence[Mark]) -> dict[str, int]:
    """For each saved state whose handler is found, the place of that handler among those present.

    First by all that is known, then by what they are about where only one is left on each side. Twins are taken in
    their order.
    """
    found: dict[str, int] = {}
    left = list(range(len(present)))

    def take(label: str, place: int) -> None:
        found[label] = place
        left.remove(place)

    for label, mark in saved.items():
        if (place := next((place for place in left if present[place] == mark), None)) is not None:
            take(label, place)
    for label, mark in saved.items():
        rivals = [each for other, each in saved.items() if other not in found and each.is_about(mark)]
        places = [place for place in left if present[place].is_about(mark)]
        if label not in found and len(rivals) == len(places) == 1:
            take(label, places[0])
    return found


def match_by_order(saved: Iterable[str], present: Sequence[Mark], taken: Iterable[int] = ()) -> dict[str, int]:
    """The same for states of which labels alone are known: the first of a class was the first to be attached."""
    found: dict[str, int] = {}
    gone = set(taken)
    labels = labels_of(present)
    for label in saved:
        kind, number = _kind_and_number(label)
        places = [place for place, mark in enumerate(present) if mark.kind == kind]
        place = labels.index(label) if label in labels else places[number - 1] if number <= len(places) else None
        if place is not None and place not in gone:
            found[label] = place
            gone.add(place)
    return found


def _kind_and_number(label: str) -> tuple[str, int]:
    kind, _, number = label.partition("(")[0].rpartition(NUMBERED)
    return (kind, int(number)) if kind and number.isdigit() else (label.partition("(")[0], 1)


def changes(saved: Mark, present: Mark) -> dict[str, tuple[Any, Any]]:
    """Settings that differ: what the checkpoint has and what the script says."""
    keys = [key for key in present.settings if key in saved.settings]
    return {
        key: (saved.settings[key], present.settings[key])
        for key in keys
        if saved.settings[key] != present.settings[key]
    }


class LoadedStates:
    """States that were loaded, whose they are, and in what the handlers differ from those that were saved.

    `marks`: what the saved handlers are known by, as `Mark.state_dict` gives it; None where they were not saved.
    """

    def __init__(self, states: Mapping[str, Any], marks: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.marks = None if marks is None else {label: Mark.from_state_dict(saved) for label, saved in marks.items()}
        self.states = dict(states)
        self.rank_states: dict[str, list[Any]] = {}
        """Of what each rank has for itself, those of all ranks."""
        self.owners: dict[str, Any] = {}
        """The handlers that were found, by the label of their state."""
        self.changed: list[str] = []

    @property
    def waits(self) -> bool:
        """There is a state whose handler was not found."""
        return any(label not in self.owners for label in (*self.states, *self.rank_states))

    def find(self, handlers: Sequence[tuple[Mark, Any]], *, exactly: bool = False) -> dict[str, Any]:
        """Finds the owners of what has none, among handlers that have none; gives those that are found now.

        `exactly`: others may still be attached, to which a state belongs that would only just do for these.
        """
        owned = set(map(id, self.owners.values()))
        if self.marks is None:
            taken = [place for place, (_, handler) in enumerate(handlers) if id(handler) in owned]
            free, present = list(handlers), [mark for mark, _ in handlers]
            labels = dict.fromkeys((*self.states, *self.rank_states))
            found = match_by_order([label for label in labels if label not in self.owners], present, taken)
        else:
            free = [(mark, handler) for mark, handler in handlers if id(handler) not in owned]
            present = [mark for mark, _ in free]
            left = {label: mark for label, mark in self.marks.items() if label not in self.owners}
            if exactly:
                left = {label: mark for label, mark in left.items() if mark in present}
            found = match(left, present)
        new = {label: free[place][1] for label, place in found.items()}
        if self.marks is not None:
            for label, place in found.items():
                for key, (was, is_now) in changes(self.marks[label], present[place]).items():
                    self.changed.append(f"{label}: {key} is {is_now!r}, and was {was!r}")
        self.owners |= new
        return new

    def differences(self, handlers: Sequence[tuple[Mark, Any]]) -> list[str]:
        """In words: saved handlers that are gone, others that were not there, and settings that are others now."""
        owned = set(map(id, self.owners.values()))
        marks = self.marks or {}
        gone = [
            f"{label} is no longer attached; its state is left out"
            for label in (marks or self.states)
            if label not in self.owners and (label not in marks or marks[label].told)
        ]
        labels = labels_of([mark for mark, _ in handlers])
        new = [
            f"{label} was not attached before, and begins anew"
            for label, (mark, handler) in zip(labels, handlers, strict=True)
            if self.marks is not None and mark.told and id(handler) not in owned
        ]
        return [*gone, *new, *self.changed]


def plain_setting(value: Any) -> Any:
    """Equal in two processes that say the same, and storable."""
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_setting(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):  # its order is another in each process
        return sorted((plain_setting(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain_setting(item) for item in value]
    return getattr(value, "__qualname__", type(value).__name__)


def setting_in_words(value: Any) -> str:
    """A plain setting as a message shows it."""
    return value if isinstance(value, str) else repr(value)


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Settings as a call shows them; None is left out."""
    told = {name: plain_setting(value) for name, value in settings.items() if value is not None}
    return ", ".join(f"{name}={setting_in_words(value)}" for name, value in told.items())
