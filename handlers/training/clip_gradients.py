"""Gradients kept within bounds."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from leyden.engine import Engine, Update, UpdateEvents

EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class ClipGradients:
    """Clips gradients before each optimizer step: their joint norm to `norm`, or each value to `value`.

    `norm_type`: the order of the norm (2.0, inf, ...). The norm before clipping is `state.metrics["grad_norm"]`
    ("name/grad_norm" for each update, where the engine has several); it is copied from the device only if someone reads
    it. `update` names the one update it is for; by default all. The same arithmetic as torch.nn.utils.clip_grad_norm_
    and clip_grad_value_.

    Raises ValueError unless exactly one positive bound is given, and for an engine without an Update.
    """

    def __init__(
        self,
        norm: float | None = None,
        value: float | None = None,
        *,
        norm_type: float = 2.0,
        update: str | None = None,
    ) -> None:
        if (norm is None) == (value is None):
            raise ValueError(f"ClipGradients takes either norm or value, but got norm={norm} and value={value}")
        bound = norm if norm is not None else value
        if bound is None or not bound > 0 or math.isnan(bound):
            raise ValueError(f"ClipGradients needs a positive bound, but got {bound}")
        self.norm = norm
        self.value = value
        self.norm_type = norm_type
        self._update = update

    def attach(self, engine: Engine[Any, Any]) -> None:
        for update in engine.targets(self._update, self):
            if self.norm is None:
                update.add_event_handler(UpdateEvents.GRADIENTS_READY, self.clip_values)
                continue
            name = "grad_norm" if len(engine.updates) == 1 else f"{update.name}/grad_norm"
            engine.declare_metrics(name)
            update.add_event_handler(UpdateEvents.GRADIENTS_READY, functools.partial(self.clip_norm, name=name))

    def clip_values(self, engine: Engine[Any, Any], update: Update) -> None:
        torch.nn.utils.clip_grad_value_(update.trainable(), self.value)  # type: ignore[arg-type]

    def clip_norm(self, engine: Engine[Any, Any], update: Update, *, name: str) -> None:
        gradients = update.gradients()
        if not gradients:
            return
        assert self.norm is not None
        # torch's function calls five times as much Python around these same operations, at each step.
        if update.uniform:
            norms = torch._foreach_norm(gradients, self.norm_type)
            total = torch.linalg.vector_norm(torch.stack(norms), self.norm_type)
            torch._foreach_mul_(gradients, (self.norm / (total + EPSILON)).clamp(max=1.0))
        else:
            total = torch.nn.utils.clip_grad_norm_(update.trainable(), self.norm, self.norm_type)
        engine.state.metrics[name] = total
