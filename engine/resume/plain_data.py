"""Batches and outputs that a state can hold: numbers, strings, tensors, and nested mappings and sequences of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def kept(value: Any) -> dict[str, Any]:
    """The value with what is needed to have it back. Raises TypeError if it is no plain data."""
    return {"value": _plain(value), "moved": _on_accelerator(value)}


def given(saved: Mapping[str, Any], device: torch.device) -> Any:
    """The value again; on `device`, if it was on an accelerator."""
    return _moved(saved["value"], device) if saved["moved"] else saved["value"]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    return type(value)(_moved(item, device) for item in value) if type(value) in (list, tuple) else value


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


def _on_accelerator(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.device.type != "cpu"
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(map(_on_accelerator, items))
