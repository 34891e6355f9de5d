"""Gradients kept within bounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch

from leyden.distributed.compat import foreach_mul_, foreach_norm
from leyden.engine import Engine, Events, Order, Update, UpdateEvents
from leyden.handlers.common.number_checks import require_flag, require_number
from leyden.handlers.common.updates import share_update
from leyden.handlers.training.gradient_norm import clip_whole_norm

EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_
NO_NORM = torch.tensor(0.0)
"""The norm of no gradients."""
Bound = float | Sequence[float]


class ClipGradients:
    """Clips gradients before each optimizer step: their joint norm to `norm`, or each value to `value`.

    `norm_type`: the order of the norm (2.0, inf, ...). The norm before clipping is `state.metrics["grad_norm"]`
    ("name/grad_norm" for each update, where the engine has several); it is copied from the device only if someone reads
    it. The same arithmetic as torch.nn.utils.clip_grad_norm_ and clip_grad_value_; of sharded parameters, on several
    meshes too, the norm is that of the whole.

    `per_group=True` takes each of the optimizer's parameter groups by itself; a sequence of bounds is one for each
    group. The norms are then "grad_norm/0", "grad_norm/1", ... `foreach` as in torch: None takes the fast way where
    there is one. `update` names the one update it is for; by default all. Values are clipped before norms.

    Raises ValueError unless exactly one kind of positive bounds is given, for an engine without an Update, for a second
    one of its kind on an update, and at the start of a run for more or fewer bounds than groups.
    """

    told_apart_by = ("update", "kind")
    settings = ("norm", "value", "norm_type", "per_group")
    same_on_ranks = ("update", *settings)

    def __init__(
        self,
        norm: Bound | None = None,
        value: Bound | None = None,
        *,
        norm_type: float = 2.0,
        per_group: bool = False,
        foreach: bool | None = None,
        update: str | None = None,
    ) -> None:
        if (norm is None) == (value is None):
            raise ValueError(f"ClipGradients takes either norm or value, but got norm={norm} and value={value}")
        bound = value if norm is None else norm
        assert bound is not None
        bounds = bound if isinstance(bound, Sequence) and not isinstance(bound, str) else (bound,)
        for each in bounds:
            if isinstance(each, bool) or not isinstance(each, int | float):
                raise TypeError(f"ClipGradients takes numbers as bounds, but got {each!r}")
            if not each > 0 or math.isnan(each):
                raise ValueError(f"ClipGradients needs a positive bound, but got {each}")
        require_number("ClipGradients", "a norm_type", norm_type, above=0, finite=False)
        require_flag("ClipGradients", "per_group", per_group)
        self.norm = norm
        self.value = value
        self.norm_type = norm_type
        self.per_group = per_group or isinstance(bound, Sequence)
        self.foreach = foreach
        self._bound = bound
        self.update = update
        self.kind = "value" if norm is None else "norm"
        self._parts: dict[str, list[tuple[int | None, float, str]]] = {}

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, ClipGradients) and other.kind == self.kind and share_update(self, other):
            return f"both bound the {self.kind} of one update's gradients; attach one, or name the update each is for"
        return None

    def attach(self, engine: Engine[Any, Any]) -> None:
        for update in engine.targets(self.update, self):
            engine.add_event_handler(Events.STARTED, self.start, update, order=Order.METRICS)
            if self.kind == "norm":
                engine.declare_metrics(functools.partial(self._names, update))
                update.add_event_handler(UpdateEvents.GRADIENTS_READY, self.clip_norm)
            else:
                update.add_event_handler(UpdateEvents.GRADIENTS_READY, self.clip_values, order=Order.DEFAULT - 1)

    def _names(self, update: Update) -> list[str]:
        name = "grad_norm" if len(update.engine.updates) == 1 else f"{update.name}/grad_norm"
        return [f"{name}/{index}" for index in range(len(update.optimizer.param_groups))] if self.per_group else [name]

    def start(self, update: Update) -> None:
        """Decides what is clipped to which bound, and under which name the norm is shown."""
        number = len(update.optimizer.param_groups) if self.per_group else 1
        bounds = list(self._bound) if isinstance(self._bound, Sequence) else [self._bound] * number
        if len(bounds) != number:
            raise ValueError(
                f"ClipGradients has {len(bounds)} bounds, but the optimizer of update {update.name!r} has {number} "
                "groups of parameters; give one bound for each, or one for all"
            )
        groups = range(number) if self.per_group else [None]
        self._parts[update.name] = list(zip(groups, bounds, self._names(update), strict=True))

    def clip_values(self, engine: Engine[Any, Any], update: Update) -> None:
        for group, bound, _ in self._parts[update.name]:
            if parameters := _trainable(update, group):
                torch.nn.utils.clip_grad_value_(parameters, bound, self.foreach)

    def clip_norm(self, engine: Engine[Any, Any], update: Update) -> None:
        for group, bound, name in self._parts[update.name]:
            if update.uniform and self.foreach is not False:
                gradients = update.gradients() if group is None else _gradients(update, group)
                if not gradients:
                    engine.state.metrics[name] = NO_NORM  # as torch's function has it
                    continue
                # torch's function calls five times as much Python around these same operations, at each step.
                norms = foreach_norm(gradients, self.norm_type)
                total = torch.linalg.vector_norm(torch.stack(norms), self.norm_type)
                foreach_mul_(gradients, (bound / (total + EPSILON)).clamp(max=1.0))
            else:
                parameters = _trainable(update, group)
                total = clip_whole_norm(parameters, bound, self.norm_type, self.foreach, update.slots.join)
            engine.state.metrics[name] = total


def _trainable(update: Update, group: int | None) -> list[torch.Tensor]:
    if group is None:
        return update.trainable()
    return [parameter for parameter in update.optimizer.param_groups[group]["params"] if parameter.requires_grad]


def _gradients(update: Update, group: int) -> list[torch.Tensor]:
    return [p.grad for p in update.optimizer.param_groups[group]["params"] if p.grad is not None]
