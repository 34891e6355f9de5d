"""Numbers that count something."""

from __future__ import annotations

import operator
import sys
from typing import Any

import torch

NEVER = sys.maxsize
"""A count that no run reaches."""


def as_whole(value: Any) -> int | None:
    """The value as an int, also of numpy's and torch's integers and whatever else Python takes as an index; None if it
    is not a whole number (2.0 and True are not).
    """
    if isinstance(value, bool) or (isinstance(value, torch.Tensor) and value.dtype == torch.bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole_number(name: str, value: Any, least: int, *, who: str | None = None) -> int:
    """The value as an int, as `as_whole` gives it.

    Raises TypeError if it is not a whole number, ValueError if it is below `least`. For the messages: `name` is that of
    the value, `who` takes it, where that is not said by the name.
    """
    number = as_whole(value)
    if number is None:
        if who is not None:
            raise TypeError(f"{who} takes {name} as a whole number, at least {least}, but got {value!r}")
        raise TypeError(f"{name} must be a whole number, but is {value!r} ({type(value).__name__})")
    if number < least:
        if who is not None:
            raise ValueError(f"{who} needs {name} of at least {least}, but got {number}")
        raise ValueError(f"{name} must be at least {least}, but is {number}")
    return number
