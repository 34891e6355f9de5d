"""Tensors of which several ranks hold a part each (DTensor), seen from one rank."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import nn


def is_sharded(tensor: torch.Tensor) -> bool:
    """True for a DTensor. Where nobody has imported them there are none, and the import takes its time."""
    room = sys.modules.get("torch.distributed.tensor")
    return room is not None and isinstance(tensor, room.DTensor)


def is_whole(tensor: torch.Tensor) -> bool:
    """True if this rank holds all of the tensor, so that it can be read without the others."""
    return not is_sharded(tensor) or all(placement.is_replicate() for placement in tensor.placements)  # type: ignore[attr-defined]


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor, in the same memory; to be called without gradients."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharded_like(target: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A value that each rank has whole, spread over the ranks as `target` is, on its device. Nothing is sent."""
    from torch.distributed.tensor import distribute_tensor

    goal: Any = target
    return distribute_tensor(value.to(goal.device), goal.device_mesh, goal.placements, src_data_rank=None)


def as_shard_of(whole: torch.Tensor, shard: torch.Tensor) -> torch.Tensor:
    """A tensor over all ranks, sharded as `whole` is, of which `shard` is this rank's part, in the same memory."""
    if not is_sharded(whole):
        return shard
    distributed: Any = whole
    return type(distributed).from_local(  # type: ignore[no-any-return]
        shard,
        distributed.device_mesh,
        distributed.placements,
        run_check=False,
        shape=distributed.shape,
        stride=distributed.stride(),
    )


def shard_for(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """This rank's part of a value that comes whole or sharded, cut as `target` is, on the target's device.

    Only a value that is sharded otherwise is gathered; all ranks then have to call this.
    """
    if is_sharded(value):
        source: Any = value
        goal: Any = target
        if is_sharded(target) and (source.device_mesh, source.placements) == (goal.device_mesh, goal.placements):
            return local_part(value).to(local_part(target).device)
        value = source.full_tensor()
    if not is_sharded(target):
        return value.to(target.device)
    return local_part(sharded_like(target, value))


def end_pass_of_shards(modules: Iterable[nn.Module]) -> None:
    """Lets modules of fully_shard forget a pass that an error ended halfway, without which the next one breaks."""
    room = sys.modules.get("torch.distributed.fsdp")
    if room is None or not hasattr(room.FSDPModule, "reset_iter_state"):  # torch before 2.13
        return
    for module in modules:
        if isinstance(module, room.FSDPModule):
            # Of all below it, too. torch raises for one that has not begun a pass, or that a larger one begins for.
            with suppress(AttributeError, RuntimeError):
                module.reset_iter_state()
        else:
            end_pass_of_shards(module.children())


def gathers_shards(modules: Iterable[nn.Module]) -> bool:
    """True if one of them, or a part of one, is a module of fully_shard."""
    room = sys.modules.get("torch.distributed.fsdp")
    return room is not None and any(
        isinstance(part, room.FSDPModule) for module in modules for part in module.modules()
    )


def reshard(modules: Iterable[nn.Module]) -> None:
    """Lets modules of fully_shard drop the gathered weights that a forward pass without a backward pass leaves there:
    they would be used again, whatever is copied into the shards meanwhile.
    """
    room = sys.modules.get("torch.distributed.fsdp")
    if room is None:
        return
    for module in modules:
        for part in module.modules():
            if isinstance(part, room.FSDPModule):
                part.reshard()
