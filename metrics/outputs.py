"""What metrics do with the outputs of a step: detach, find the device, take pairs apart, describe what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def detached(value: Any) -> Any:
    """The same value with its tensors cut from their graph, in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(detached, value))
    if isinstance(value, tuple):
        return tuple(map(detached, value))
    if isinstance(value, list):
        return list(map(detached, value))
    if isinstance(value, Mapping):
        return {key: detached(item) for key, item in value.items()}
    return value


def device_of(value: Any) -> torch.device | None:
    """The device of the first tensor in a nested value, None if there is none."""
    if isinstance(value, torch.Tensor):
        return value.device
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return None
    return next((device for item in value if (device := device_of(item)) is not None), None)


def described(value: Any) -> str:
    """A value for an error message: its type, and the shapes in it."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(str, value)) or '(none)'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: ({'; '.join(described(item) for item in value)})"
    return f"{type(value).__name__} {value!r}"


def tensor_pair(metric: object, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(y_pred, y) of an output. Raises TypeError if it is no pair of tensors."""
    if isinstance(output, tuple | list) and len(output) == 2 and all(isinstance(each, torch.Tensor) for each in output):
        y_pred, y = output
        return y_pred, y
    raise TypeError(
        f"{type(metric).__name__} takes (y_pred, y), two tensors, but found {described(output)}; "
        "give it an output_transform that makes such a pair of the engine's output"
    )
