"""The learning rates of an optimizer as one number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from leyden.distributed.compat import last_rates
from leyden.engine.step import groups_before, optimizer_kind
from leyden.handlers.training.torch_schedulers import Scheduler, schedulers_in


class LearningRates:
    """The learning rates of all groups by that of the fastest one; the others keep their ratio to it.

    Where a scheduler is at work, the ratios are those of the rates that it begins from (`initial_lr`): a warm-up may
    hold the present ones at 0.

    Raises ValueError for an optimizer without a learning rate.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._groups = optimizer.param_groups
        if any("lr" not in group for group in self._groups):
            raise ValueError(f"{optimizer_kind(optimizer)} has no learning rate (lr) in its groups to be searched for")
        self._bases = [float(group.get("initial_lr", group["lr"])) for group in self._groups]
        self.base = max(self._bases)
        self._ratios = [base / self.base if self.base > 0 else 1.0 for base in self._bases]

    def set(self, rate: float) -> None:
        """Gives the fastest group this learning rate."""
        for group, ratio in zip(self._groups, self._ratios, strict=True):
            _put(group, "lr", rate * ratio)

    def rebase(self, rate: float, schedulers: Iterable[Scheduler]) -> None:
        """Lets training begin from this learning rate; schedulers go on from it, a warm-up with its fraction of it."""
        for group, base, ratio in zip(self._groups, self._bases, self._ratios, strict=True):
            present = float(group["lr"])
            _put(group, "lr", rate * ratio * (present / base if base > 0 else 1.0))
            if "initial_lr" in group:
                _put(group, "initial_lr", rate * ratio)
        for scheduler in schedulers:
            first = groups_before(self._optimizer, scheduler.optimizer) or 0
            for place, group in enumerate(scheduler.optimizer.param_groups):
                if hasattr(scheduler, "base_lrs"):
                    _put(scheduler.base_lrs, place, rate * self._ratios[first + place])
                if rates := last_rates(scheduler):
                    _put(rates, place, float(group["lr"]))


def schedulers_of(handlers: Iterable[Any], optimizer: torch.optim.Optimizer) -> list[Scheduler]:
    """The schedulers of the optimizer, or of one of several, that handlers hold, and those that these are made of."""
    held = [value for handler in handlers for value in vars(handler).values() if isinstance(value, Scheduler)]
    parts = [part for scheduler in held for part in schedulers_in(scheduler)]
    return [part for part in parts if groups_before(optimizer, part.optimizer) is not None]


def _put(place: Any, key: Any, value: float) -> None:
    # A learning rate that is a tensor (of a captured or compiled step) is filled: who holds it sees the new value.
    if isinstance(place[key], torch.Tensor):
        place[key].fill_(value)
    else:
        place[key] = value
