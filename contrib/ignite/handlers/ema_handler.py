"""Ignite's average of the weights: a second model, updated at an event.

`leyden.handlers.EMA` averages at each optimizer step, is saved and resumed, and is what evaluations use.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from leyden.distributed.compat import foreach_add_, foreach_mul_
from leyden.engine import Engine, Events


class EMAHandler:
    """`ema_model` follows `model`: at each event, average = (1 - momentum) * average + momentum * weight.

    The momentum stands in `engine.state` under the `name` of attach, and goes on a line from `momentum_warmup` to
    `momentum` within `warmup_iters` events, if both are given. `handle_buffers`: "copy" those of the model, "update"
    them like weights, or leave them to an averaged model in train mode ("ema_train").

    Raises ValueError for a momentum not between 0 and 1 and for another word.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        momentum_warmup: float | None = None,
        warmup_iters: int | None = None,
        handle_buffers: str = "copy",
    ) -> None:
        if not 0 < momentum < 1:
            raise ValueError(f"EMAHandler needs a momentum between 0 and 1, but got {momentum}")
        if not isinstance(model, nn.Module):
            raise ValueError(f"EMAHandler averages a module, but got {model!r}")
        if handle_buffers not in ("copy", "update", "ema_train"):
            raise ValueError(f'handle_buffers is "copy", "update" or "ema_train", but is {handle_buffers!r}')
        self.model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.ema_model = copy.deepcopy(self.model).requires_grad_(False).train(handle_buffers == "ema_train")
        self.momentum = momentum
        self.momentum_warmup = momentum_warmup
        self.warmup_iters = warmup_iters
        self.handle_buffers = handle_buffers
        self._events = 0

    def attach(
        self,
        engine: Engine[Any, Any],
        name: str = "ema_momentum",
        warn_if_exists: bool = True,
        event: Any = Events.ITERATION_COMPLETED,
    ) -> None:
        if not hasattr(engine.state, name):
            setattr(engine.state, name, self.momentum)
        elif warn_if_exists:
            warnings.warn(f"engine.state has {name!r} already, and EMAHandler averages with that value", stacklevel=2)
        engine.add_event_handler(event, self._update, name)

    @torch.no_grad()
    def _update(self, engine: Engine[Any, Any], name: str) -> None:
        if self.momentum_warmup is not None and self.warmup_iters is not None:
            progress = min(self._events / max(1, self.warmup_iters - 1), 1.0)
            setattr(engine.state, name, self.momentum_warmup + (self.momentum - self.momentum_warmup) * progress)
        self._events += 1
        momentum = getattr(engine.state, name)
        _average(list(self.ema_model.parameters()), list(self.model.parameters()), momentum)
        for average, buffer in zip(self.ema_model.buffers(), self.model.buffers(), strict=True):
            if self.handle_buffers == "update" and buffer.is_floating_point():
                _average([average], [buffer], momentum)
            elif self.handle_buffers != "ema_train":
                average.copy_(buffer)


def _average(averages: list[torch.Tensor], values: list[torch.Tensor], momentum: float) -> None:
    foreach_mul_(averages, 1.0 - momentum)
    foreach_add_(averages, values, alpha=momentum)
