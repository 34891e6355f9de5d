"""What metrics do with the outputs of a step: detach, find the device, take pairs apart, describe what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import numpy as np
import torch

from leyden.engine.values import first_tensor, map_tensors


def wide(value: Any) -> Any:
    """The same value with its tensors cut from their graph, and floating ones of less than 32 bits as float32."""
    if value.__class__ is tuple:  # as most outputs are: no more calls than tensors
        return tuple([_wide(item) if item.__class__ is torch.Tensor else map_tensors(item, _wide) for item in value])
    return map_tensors(value, _wide)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor


def full_precision() -> AbstractContextManager[Any]:
    """Turns autocast off within, on the kinds of device where it is on."""
    for kind in _AUTOCAST_KINDS:
        if torch.is_autocast_enabled(kind):
            break
    else:
        return _NOTHING
    kinds = [kind for kind in _AUTOCAST_KINDS if torch.is_autocast_enabled(kind)]
    stack = ExitStack()
    for kind in kinds:
        stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


_NOTHING: AbstractContextManager[Any] = nullcontext()
_ACCELERATOR = torch.accelerator.current_accelerator()
_AUTOCAST_KINDS = tuple(
    kind
    for kind in dict.fromkeys(("cpu", "xla", *([] if _ACCELERATOR is None else [_ACCELERATOR.type])))
    if torch.amp.is_autocast_available(kind)
)
"""Kinds of device that this process may have: each is asked at every update."""


def device_of(value: Any) -> torch.device | None:
    """The device of the first tensor in a nested value, None if there is none."""
    tensor = first_tensor(value)
    return None if tensor is None else tensor.device


def described(value: Any) -> str:
    """A value for an error message: its type, and the shapes in it."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(str, value)) or '(none)'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: ({'; '.join(described(item) for item in value)})"
    return f"{type(value).__name__} {value!r}"


def items_of(output: Mapping[str, Any], keys: Sequence[str], who: str) -> tuple[Any, ...]:
    """The items of these keys. Raises ValueError if one is missing."""
    if missing := [key for key in keys if key not in output]:
        raise ValueError(
            f"{who} needs {', '.join(missing)} in its output, but found {described(output)}; "
            "give it an output_transform that makes one with these keys"
        )
    return tuple([output[key] for key in keys])


def tensor_pair(metric: object, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(y_pred, y) of an output. Raises TypeError if it is no pair of tensors."""
    if (output.__class__ is tuple or isinstance(output, tuple | list)) and len(output) == 2:
        y_pred, y = output
        if y_pred.__class__ is torch.Tensor is y.__class__:  # as most are: no call is spent on them
            return y_pred, y
        if isinstance(y_pred, torch.Tensor) and isinstance(y, torch.Tensor):
            return y_pred, y
    raise TypeError(
        f"{type(metric).__name__} takes (y_pred, y), two tensors, but found {described(output)}; "
        "give it an output_transform that makes such a pair of the engine's output"
    )
