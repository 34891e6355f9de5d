"""Recomputes batch norm statistics, for weights that no forward pass has seen yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import nn

from leyden import distributed as dist
from leyden.distributed.compat import BatchNorm
from leyden.engine import Engine, to_device
from leyden.engine.randomness import rng_state, set_rng_state

Predict = Callable[[Any], Any] | None
HOW = (
    "the statistics of batch norm are made anew from batches, and forward=, a function of the batch, says how that is "
    "done (update_batch_norm=False leaves it out)"
)


def running_norms(model: nn.Module) -> list[BatchNorm]:
    """The batch norms that keep statistics and are not frozen. One in eval mode within a model in train mode counts as
    frozen.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and module.running_mean is not None]
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
    if dist.data_size() > 1:  # each rank has passed as many batches, those of its share
        for norm, _ in momenta:
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                statistic.copy_(dist.all_reduce(statistic, op="mean", over="data"))


class NormRefresh:
    """One more pass over the data of a run, or over other data, that leaves nothing but new statistics.

    `data`: None for the run's own. `forward(batch)`: how a batch is passed through; None for what the trainer itself
    does (`predict`), or, where nobody says, model(batch), or model(batch[0]) where it is a tuple or list.
    """

    def __init__(self, data: Iterable[Any] | None, forward: Callable[[Any], Any] | None) -> None:
        self.data = data
        self.forward = forward

    def check(self, engine: Engine[Any, Any], models: Sequence[nn.Module]) -> None:
        """Raises ValueError, when a run starts, for anything that would fail at its end."""
        if self.forward is None and len(models) > 1:
            kinds = ", ".join(type(model).__name__ for model in models)
            raise ValueError(
                f"SWA makes the batch norm statistics of {kinds} anew at the end of the run, and does not know "
                "which of them takes a batch: give forward=, a function of the batch, or update_batch_norm=False"
            )
        data = engine.state.dataloader
        if self.data is None and (data is None or isinstance(data, Iterator)):
            raise ValueError(
                "SWA passes over the data once more at the end of the run, for the statistics of batch norm, but "
                f"that of the run ({type(data).__name__}) comes only once: give data=, or update_batch_norm=False"
            )

    def try_out(
        self, batch: Any, models: Sequence[nn.Module], autocast: AbstractContextManager[Any] | None, predict: Predict
    ) -> None:
        """Passes a batch through, in eval mode, before the first step: what can't be passed is told now, not at the
        end of the run. Random numbers are then as before. Raises the model's own error, with a note.
        """
        forward = self._forward(models, autocast, predict)
        modes = [(module, module.training) for model in models for module in model.modules()]
        random = rng_state()
        try:
            for model in models:
                model.eval()
            with torch.no_grad():
                forward(batch)
        except Exception as error:
            error.add_note(f"raised while SWA tried with the first batch what it is to do at the end: {HOW}")
            raise
        finally:
            for module, mode in modes:
                module.training = mode
            set_rng_state(random)

    def _forward(
        self, models: Sequence[nn.Module], autocast: AbstractContextManager[Any] | None, predict: Predict
    ) -> Callable[[Any], None]:
        device = next(models[0].parameters()).device

        def forward(batch: Any) -> None:
            with autocast or nullcontext():
                bare = self.data is not None and isinstance(batch, torch.Tensor)  # inputs without targets
                if self.forward is None and predict is not None and not bare:
                    predict(batch)
                    return
                batch = to_device(batch, device)
                if self.forward is not None:
                    self.forward(batch)
                else:
                    models[0](batch[0] if isinstance(batch, list | tuple) else batch)

        return forward

    def __call__(
        self,
        engine: Engine[Any, Any],
        models: Sequence[nn.Module],
        autocast: AbstractContextManager[Any] | None,
        predict: Predict,
    ) -> None:
        """Makes the statistics; random numbers are then as before."""
        forward = self._forward(models, autocast, predict)
        own = self.data is None
        data = engine.state.dataloader if own else engine.data_setup(self.data)
        random = rng_state()
        try:
            refresh_batch_norm(models, islice(data, engine.state.epoch_length if own else None), forward)
        except Exception as error:
            if self.forward is None:
                error.add_note(f"raised while SWA passed batches through the model at the end of the run: {HOW}")
            raise
        finally:
            set_rng_state(random)
