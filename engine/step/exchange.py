"""Whether the ranks of a run train one model together."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden import distributed as dist

if TYPE_CHECKING:
    from leyden.engine.step.update import Update


def require_exchange(update: Update) -> None:
    """Raises RuntimeError if there are several ranks and nothing exchanges the update's gradients among them."""
    ranks = dist.data_size()
    if ranks == 1 or update.independent or update.slots.sync is not None or not update.trainable():
        return
    if any(_exchanges(module) for module in update.modules.values()) or any(map(dist.is_sharded, update.trainable())):
        return
    raise RuntimeError(
        f"the update {update.name!r} would train {ranks} models, one on each of {ranks} ranks: nothing exchanges its "
        "gradients among them. Attach DataParallel() to the engine, which also deals the data. Where each rank shall "
        "train a model of its own, or the process function exchanges gradients by itself, say so before the run: "
        f"engine.updates[{update.name!r}].independent = True"
    )


def mean_over_ranks(update: Update, loss: torch.Tensor) -> torch.Tensor:
    """A loss whose gradients are a mean over the ranks, as that of all of them; of a model that each rank has for
    itself, the loss as it is.
    """
    if dist.data_size() == 1 or update.independent:
        return loss
    return dist.all_reduce(loss, op="mean", over="data")


def _exchanges(module: nn.Module) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # where nobody has imported it, no module is wrapped by it
    wrappers = (DistributedDataParallel,) if fsdp is None else (DistributedDataParallel, fsdp.FullyShardedDataParallel)
    return any(isinstance(part, wrappers) for part in module.modules())
