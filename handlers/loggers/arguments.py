"""Checks the arguments of loggers and bars, so that a mistake shows when they are made, not after the training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from leyden.engine.values import as_whole
from leyden.handlers.loggers.values import check_metric_choice


def check_what_is_shown(who: str, metrics: object, output_transform: object) -> None:
    """Raises TypeError for anything but a choice of metrics, and for a transform that can't be called."""
    check_metric_choice(metrics, who)
    if output_transform is not None and not callable(output_transform):
        raise TypeError(f"{who}(output_transform=) takes a function of the output, but got {output_transform!r}")


def iterations_between(who: str, every: Any) -> int | None:
    """`every` as an int. Raises TypeError if it is not a whole number, ValueError if it is below 1."""
    if every is None:
        return None
    number = as_whole(every)
    if number is None:
        raise TypeError(f"{who}(every=) takes a whole number of iterations or None, but got {every!r}")
    if number < 1:
        raise ValueError(f"{who}(every=) must be at least 1, or None for never, but is {every}")
    return number


def seconds(who: str, patience: Any) -> float:
    """`patience` as a float. Raises TypeError if it is not a number, ValueError if it is below 0 or NaN."""
    if isinstance(patience, bool) or not isinstance(patience, Real):
        raise TypeError(f"{who}(patience=) takes seconds, but got {patience!r}")
    if math.isnan(patience) or patience < 0:
        raise ValueError(f"{who}(patience=) must be at least 0 seconds, but is {patience}")
    return float(patience)


def parameters(who: str, params: Any) -> dict[str, Any]:
    """`params` copied into a dict. Raises TypeError if it is not a mapping."""
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(f"{who}(params=) takes a mapping of names and values (vars(args), say), but got {params!r}")
    return dict(params or {})
