"""Checks of the numbers that shapes are made with."""

from __future__ import annotations

import math
from typing import Any


def check_number(who: object, name: str, value: Any) -> None:
    """Raises TypeError if it is not a number, ValueError if it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(who).__name__} takes numbers, but its {name} is {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{type(who).__name__} takes finite numbers, but its {name} is {value}")


def check_duration(who: object, value: Any, *, endless: bool = False) -> None:
    """Raises TypeError if it is not a number, ValueError for a duration that is not positive or, where one is needed,
    has no end.
    """
    if endless and value == math.inf:
        return
    if value == math.inf:
        raise ValueError(f"{type(who).__name__} needs a duration here, but got a shape without end; give it a duration")
    check_number(who, "duration", value)
    if value <= 0:
        raise ValueError(f"{type(who).__name__} needs a duration above 0 counts, but got {value}")


def set_frozen(shape: object, **attributes: Any) -> None:
    """Sets attributes of a frozen dataclass while it is being made."""
    for name, value in attributes.items():
        object.__setattr__(shape, name, value)
