"""Batch norm statistics made anew, for weights that no forward pass has seen yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from leyden import distributed as dist


def running_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep statistics and are not frozen: one in eval mode in a model in train mode is."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
    return [norm for norm in norms if norm.training or not model.training]


@torch.no_grad()
def refresh_batch_norm(models: Sequence[nn.Module], batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Gives the models' batch norms the mean of the statistics of the batches, over all ranks; `forward` passes one
    through.

    The arithmetic of torch.optim.swa_utils.update_bn: train mode, dropout included, and a cumulative average. Modes and
    momenta are then as before. Frozen norms stay as they are.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    momenta = [(norm, norm.momentum) for model in models for norm in running_norms(model)]
    try:
        for model in models:
            if not model.training:
                model.train()
        for norm, _ in momenta:
            norm.reset_running_stats()
            norm.momentum = None
        for batch in batches:
            forward(batch)
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
    if dist.world_size() > 1:  # each rank has passed as many batches, those of its share
        for norm, _ in momenta:
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                statistic.copy_(dist.all_reduce(statistic, op="mean"))
