"""Counts what would wait for an accelerator: operations whose result, or its size, the host has to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount", "unique", "_unique2")


class Waits(TorchDispatchMode):
    """Where tensors lie on a device, those on the host are left out: the host knows them."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        result = func(*args, **(kwargs or {}))
        there = any(isinstance(each, torch.Tensor) and each.device.type == self.device for each in args)
        to_host = self.device != "cpu" and isinstance(result, torch.Tensor) and result.device.type == "cpu"
        self.number += there and (name in WAITING or masked or to_host)
        return result


@contextmanager
def as_on_an_accelerator(device: str) -> Iterator[None]:
    """Lets leyden's metrics treat the CPU's tensors as those of a device that it would have to wait for."""
    if device != "cpu":
        yield
        return
    with patch("leyden.metrics.classification.can_look_at", lambda tensor: False):
        yield


def waits(update: Callable[[], Any], updates: int, device: str) -> int:
    """How often `updates` calls wait; the first is not counted, which may set things up."""
    with as_on_an_accelerator(device):
        update()
        with Waits(torch.device(device).type) as mode:
            for _ in range(updates):
                update()
    return mode.number
