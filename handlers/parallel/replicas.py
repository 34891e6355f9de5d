"""Replicas of a model whose gradients are averaged: torch's DistributedDataParallel, without wrapping the user's
module.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden import distributed as dist
from leyden.distributed.compat import (
    BatchNorm,
    begin_pass_of_replica,
    end_pass_of_replica,
    leaving_out,
    share_buffers_of_replica,
)
from leyden.engine import Update
from leyden.handlers.parallel.flat_exchange import average

BUCKET_MB = 25
"""As torch has it where `bucket_cap_mb` is not given."""


class Replicas:
    """Fills an update's sync slot.

    The reducer of DistributedDataParallel hangs on the parameters, so the module stays the user's own. It is told of a
    pass by the update, not by the module's forward: a model may be called in parts or several times in one pass.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._replicas: list[DistributedDataParallel] = []
        self._goes_backward = False
        self._broken = False  # a backward pass ended halfway, in which the ranks were exchanging gradients

    def replicate(self, update: Update) -> None:
        """Makes the update's models equal to rank 0's and watches their gradients."""
        for module in update.modules.values():
            if isinstance(module, DistributedDataParallel):
                continue  # the user's own: it synchronises by itself, only the window is told to it
            _make_alike(module, (dimension for dimension in ("context", "tensor") if dist.mesh().size(dimension) > 1))
            if dist.data_size() == 1:
                continue
            others = _parameters_of_others(module, update)
            if any(p.requires_grad and name not in others for name, p in module.named_parameters()):
                with leaving_out(module, others):
                    self._replicas.append(DistributedDataParallel(module, **_options_over_data(self._options)))
                _broadcast(others.values(), "data")
            else:
                _make_alike(module, ("data",))

    def begin(self, update: Update, closing: bool) -> None:
        if self._broken:
            self.rebuild(update)
        self._goes_backward = False
        for module in update.modules.values():
            if isinstance(module, DistributedDataParallel):
                module.require_backward_grad_sync = closing
        for replica in self._replicas:
            replica.require_backward_grad_sync = closing
            begin_pass_of_replica(replica)

    def before_backward(self, update: Update, losses: list[torch.Tensor], closing: bool) -> list[torch.Tensor]:
        self._goes_backward = closing
        if not closing and self._replicas and self._options.get("static_graph"):
            raise ValueError(
                f'DataParallel(static_graph=True) can\'t train update "{update.name}" with several batches, or several '
                "backward passes, in a step: torch's reducer fails on the first one that exchanges nothing. Leave "
                "static_graph out; find_unused_parameters=True finds parameters that a pass does not use"
            )
        for replica in self._replicas:
            replica.require_backward_grad_sync = closing
            losses = end_pass_of_replica(replica, losses)
        return losses

    def share_buffers(self) -> None:
        """Gives the models' buffers rank 0's values, as the first pass of the next window does."""
        for replica in self._replicas:
            share_buffers_of_replica(replica)

    def abandon(self) -> None:
        # Made anew when the next batch comes: an error that ends the run waits for no other rank.
        self._broken = self._goes_backward

    def rebuild(self, update: Update) -> None:
        self._broken = False
        self._replicas.clear()
        self.replicate(update)

    def reduce(self, update: Update) -> None:
        for replica in self._replicas:
            replica.require_forward_param_sync = (
                True  # as after a pass that exchanged: a window begins with equal buffers
            )
        if dist.data_size() == 1:
            return
        gradients, parameters = [], update.trainable()
        own = [parameter.grad is not None for parameter in parameters]
        for parameter in parameters:
            if parameter.grad is None:  # another rank may have one: all take part
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad.is_sparse:
                raise ValueError(
                    f'update "{update.name}" has a sparse gradient, of a parameter of shape {tuple(parameter.shape)}, '
                    "which DataParallel can't exchange after several backward passes of a batch, or where an epoch "
                    "cuts a window short; make it dense: nn.Embedding(..., sparse=False)"
                )
            gradients.append(dist.local_part(parameter.grad))
        found = average(gradients, own, self._options.get("bucket_cap_mb") or BUCKET_MB)
        for parameter, anywhere in zip(parameters, found, strict=True):
            if not anywhere:  # as in one process: an optimizer leaves it alone, its moments and its decay too
                parameter.grad = None


def _make_alike(module: nn.Module, dimensions: Iterable[str]) -> None:
    """Gives a module the values of the first rank along these dimensions; what is sharded stays as it is. Along the
    data, one that is trained gets them from DistributedDataParallel.
    """
    for dimension in dimensions:
        _broadcast((*module.parameters(), *module.buffers()), dimension)


@torch.no_grad()
def _broadcast(tensors: Iterable[torch.Tensor], dimension: str) -> None:
    for tensor in tensors:
        if not dist.is_sharded(tensor):
            tensor.copy_(dist.broadcast(tensor, over=dimension))


def _parameters_of_others(module: nn.Module, update: Update) -> dict[str, nn.Parameter]:
    """Where an engine has several updates, the trainable parameters of a module that are not this one's, by all of
    their names: its backward pass does not reach them.
    """
    if len(update.engine.updates) == 1:
        return {}
    own = {id(parameter) for group in update.optimizer.param_groups for parameter in group["params"]}
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in named if parameter.requires_grad and id(parameter) not in own}


def _options_over_data(options: dict[str, Any]) -> dict[str, Any]:
    """Those of DistributedDataParallel, over the ranks that see different data where these are not all."""
    if dist.data_size() == dist.world_size():
        return options
    return {"process_group": dist.mesh().group("data"), **options}


def synchronise_batch_norm(module: nn.Module) -> None:
    """Exchanges the module's batch norms, in place, for those that share their statistics among ranks."""
    for name, child in module.named_children():
        if isinstance(child, BatchNorm):
            group = None if dist.data_size() == dist.world_size() else dist.mesh().group("data")
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child, group))
        else:
            synchronise_batch_norm(child)
