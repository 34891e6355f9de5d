"""What `state.metrics` holds: plain numbers, mappings of them; matrices and curves (tuples of vectors) on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def plain(value: Any) -> Any:
    """A metric's value in plain form: a vector (a value for each class) as {0: ..., 1: ...}, a matrix on the CPU."""
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.ndim == 0:
            return value.item()
        return dict(enumerate(value.tolist())) if value.ndim == 1 else value.cpu()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_point_or_curve(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _point_or_curve(value: Any) -> Any:
    """A number as such; what has a length on the CPU as it is: the points of a curve are no values of classes."""
    if isinstance(value, torch.Tensor) and value.ndim > 0:
        return value.detach().cpu()
    return plain(value)
