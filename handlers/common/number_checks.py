"""Checks of the arguments that handlers are given: numbers, functions, truth values.

Whole numbers are checked by `whole_number` of `leyden.engine.values`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from leyden.engine.values import as_whole


def require_number(
    who: str,
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    finite: bool = True,
) -> float:
    """The number as a float. Raises TypeError if it is not a number, ValueError if it is NaN, out of bounds or, unless
    `finite` is False, infinite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{who} takes {name} as a number, but got {value!r}")
    number = float(value)
    inside = (
        (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )
    if inside and not math.isnan(number) and not (finite and math.isinf(number)):
        return number
    bounds = {"of at least": least, "above": above, "at most": most, "below": below}
    said = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    wanted = " ".join([name, " and ".join(said)]) if said else f"{name} that is finite"
    raise ValueError(f"{who} needs {wanted}, but got {value}")


def require_epochs(plan: str, epochs: Iterable[Any]) -> None:
    """Raises TypeError or ValueError for keys of a plan that are not epochs: whole numbers, counted from 1."""
    for epoch in epochs:
        if as_whole(epoch) is None:
            raise TypeError(f"{plan} has the epoch {epoch!r}; epochs are whole numbers, the first one is 1")
        if epoch < 1:
            advice = ": add 1 to each of a plan that counts from 0" if epoch == 0 else ""
            raise ValueError(
                f"{plan} has the epoch {epoch}; epochs are counted from 1, as state.epoch counts them{advice}"
            )


def require_function(who: str, name: str, value: Any, of: str) -> None:
    """Raises TypeError if it can't be called; None is allowed. `of`: its arguments, for the message."""
    if value is not None and not callable(value):
        raise TypeError(f"{who} takes {name} as a function of {of}, but got {value!r}")


def require_flag(who: str, name: str, value: Any) -> None:
    """Raises TypeError if it is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{who} takes {name} as True or False, but got {value!r}")
