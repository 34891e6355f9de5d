"""What an update's optimizers train."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leyden.distributed import gathers_shards, is_sharded
from leyden.engine.step.several_optimizers import optimizer_kind, optimizers_in
from leyden.engine.step.slots import Slots


class Optimized:
    """The part of an `Update` that knows parameters and gradients."""

    name: str
    slots: Slots
    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    """What steps: the one, or several as one, whose groups and states are theirs."""
    uniform = False
    """All parameters have one device and dtype, and are whole on each rank: one operation can work on all gradients."""
    gathers_shards = False
    """A model of it is one of fully_shard, whose passes work on gathered weights."""

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """The one, or the several that step together."""
        return optimizers_in(self.optimizer)

    def trainable(self) -> list[torch.Tensor]:
        """The optimizer's parameters that require a gradient."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def gradients(self) -> list[torch.Tensor]:
        """The gradients that are there, in the order of the optimizer's parameters."""
        return [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]

    def look_at_kinds(self) -> None:
        """Settles whether all parameters are of one kind and whole on each rank, and whether shards are gathered."""
        kinds: set[Any] = {
            (p.device, p.dtype, p.layout, type(p)) for group in self.optimizer.param_groups for p in group["params"]
        }
        whole = self.slots.join is None and not any(map(is_sharded, self.trainable()))
        self.uniform = len(kinds) == 1 and whole
        self.gathers_shards = gathers_shards(self.modules.values())

    def describe(self) -> str:
        models = ", ".join(type(module).__name__ for module in self.modules.values())
        filled = ", ".join(f"{slot} by {owner}" for slot, owner in self.slots.owners.items()) or "no slot filled"
        return f"{optimizer_kind(self.optimizer)} on {models}; {filled}"
