"""Batches and outputs that a state can hold: numbers, strings, tensors, and nested mappings and sequences of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from leyden.engine.values.nested import map_tensors, tensors_of


def kept(value: Any) -> dict[str, Any]:
    """The value with what is needed to restore it. Raises TypeError if it is not plain data."""
    moved = any(tensor.device.type != "cpu" for tensor in tensors_of(value))
    return {"value": _plain(value), "moved": moved}


def given(saved: Mapping[str, Any], device: torch.device) -> Any:
    """The value again; on `device`, if it was on an accelerator."""
    return map_tensors(saved["value"], lambda tensor: tensor.to(device)) if saved["moved"] else saved["value"]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if type(value) is torch.Tensor or isinstance(value, torch.nn.Parameter):
        return value.detach()
    if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    raise TypeError(f"it has a {type(value).__name__}")
