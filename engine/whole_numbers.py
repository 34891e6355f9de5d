"""Numbers that count something."""

from __future__ import annotations

import operator
from typing import Any

import torch


def whole_number(name: str, value: Any, least: int) -> int:
    """The value as an int, also of numpy's integers and whatever else Python takes as an index.

    Raises TypeError for what is no whole number (a bool is none), ValueError for one below `least`; `name` says whose.
    """
    try:
        if isinstance(value, bool) or (isinstance(value, torch.Tensor) and value.dtype == torch.bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, but is {value!r} ({type(value).__name__})") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, but is {number}")
    return number
