"""Tensors that lie in shards on several ranks, seen from one rank."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def is_sharded(tensor: torch.Tensor) -> bool:
    """True for a DTensor. Where nobody has imported them there are none, and the import takes its time."""
    room = sys.modules.get("torch.distributed.tensor")
    return room is not None and isinstance(tensor, room.DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor, in the same memory; to be called without gradients."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


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
    """This rank's part of a value that comes whole or sharded, cut as `target` is; on the target's device.

    Only a value that is sharded otherwise is gathered; all ranks then have to call this.
    """
    if is_sharded(value):
        source: Any = value
        goal: Any = target
        if is_sharded(target) and (source.device_mesh, source.placements) == (goal.device_mesh, goal.placements):
            return local(value).to(local(target).device)
        value = source.full_tensor()
    if not is_sharded(target):
        return value.to(target.device)
    from torch.distributed.tensor import distribute_tensor

    goal = target
    value = value.to(local(target).device)
    return local(distribute_tensor(value, goal.device_mesh, goal.placements, src_data_rank=None))


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
