"""Batches moved to a device, whatever containers their tensors lie in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from leyden.engine.values.nested import SCALAR_TYPES, items_of, with_items

Move = Callable[[Any], Any]


def to_device(value: Any, device: torch.device | str, non_blocking: bool = False) -> Any:
    """A batch on a device: its tensors, and objects with a method `to(device)`, wherever they lie in mappings, lists,
    tuples, named tuples and dataclasses. Containers are made anew, of their own type; all else stays as it is.
    """
    return move_nested(value, mover(torch.device(device), non_blocking, pin=False))


def move_module(module: nn.Module, device: torch.device) -> None:
    """Moves a module in place, unless all of it is there already."""
    if any(tensor.device != device for tensor in (*module.parameters(), *module.buffers())):
        module.to(device)


def mover(device: torch.device, non_blocking: bool, pin: bool) -> Move:
    """A function that moves a tensor, or an object with a method `to(device, non_blocking=...)`."""
    options = {"non_blocking": True} if non_blocking else {}

    def move(value: Any) -> Any:
        if pin and isinstance(value, torch.Tensor):
            value = pinned(value)
        try:
            return value.to(device, **options)
        except TypeError as error:
            if options and not isinstance(value, torch.Tensor):
                error.add_note(
                    f"{type(value).__name__}.to(device, non_blocking=True) was called; "
                    "DeviceTransfer(non_blocking=False) calls to(device), and so does non_blocking=False of an engine"
                )
            raise

    return move


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in page-locked memory, from which a device copies while the host goes on; as it is if it can't be."""
    if tensor.device.type == "cpu" and tensor.layout is torch.strided:
        return tensor.pin_memory()
    return tensor


def move_nested(value: Any, move: Move) -> Any:
    """Applies `move` to the tensors, and objects with a method `to`, in nested containers; containers are made anew, of
    their own type, and all else stays as it is.
    """
    if isinstance(value, torch.Tensor):
        return move(value)
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([move_nested(item, move) for item in value])
    if kind is dict:
        return {key: move_nested(item, move) for key, item in value.items()}
    if kind in SCALAR_TYPES:
        return value
    if callable(getattr(value, "to", None)) and not isinstance(value, type):
        return move(value)
    items = items_of(value)
    return value if items is None else with_items(value, [move_nested(item, move) for item in items])
