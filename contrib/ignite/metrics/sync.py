"""Ignite's decorators for metrics of one's own, whose states are plain attributes; leyden's declare theirs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

from leyden import distributed as dist
from leyden.metrics import Metric

Method = TypeVar("Method", bound=Callable[..., Any])


def sync_all_reduce(*attributes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets `compute` see these attributes (numbers or tensors) reduced over the ranks that see different data, one
    collective for each; the own ones come back afterwards. `"name"` is summed, `"name:MAX"` reduced by MAX, MIN, SUM or
    PRODUCT.

    Raises ValueError for another reduction; when it is called AttributeError for an attribute that is not there,
    TypeError for one that is neither number nor tensor.
    """
    ops = {}
    for attribute in attributes:
        name, _, op = attribute.partition(":")
        ops[name] = op.lower() or "sum"
        if ops[name] not in ("sum", "max", "min", "product"):
            raise ValueError(f"sync_all_reduce knows SUM, MAX, MIN and PRODUCT, but got {attribute!r}")

    def surround(compute: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(compute)
        def reduced(self: Metric, *args: Any, **named: Any) -> Any:
            if dist.data_size() == 1:
                return compute(self, *args, **named)
            own = {name: _state(self, name) for name in ops}
            for name, value in own.items():
                setattr(self, name, dist.all_reduce(value, ops[name], over="data"))
            try:
                return compute(self, *args, **named)
            finally:
                vars(self).update(own)

        return reduced

    return surround


def reinit__is_reduced(method: Method) -> Method:
    """Nothing is left to do: what is reduced is never kept."""
    return method


def _state(metric: Metric, name: str) -> Any:
    if name not in vars(metric):
        raise AttributeError(f"sync_all_reduce names {name!r}, but {type(metric).__name__} has no such attribute")
    value = vars(metric)[name]
    if not isinstance(value, torch.Tensor | int | float):
        raise TypeError(f"sync_all_reduce takes numbers and tensors, but {type(metric).__name__}.{name} is {value!r}")
    return value
