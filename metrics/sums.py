"""Sums of floats over an epoch: in float64, and where the device has none, in float32 without losing what is small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from leyden.metrics.base import Metric

LOST = "_lost"
"""After a sum's name, the state of what rounding took from it."""


def add_sum(metric: Metric, name: str, shape: tuple[int, ...] = ()) -> None:
    """Declares the sum as two states: itself, and what rounding took from it (0 in float64)."""
    for state in (name, name + LOST):
        metric.add_state(state, torch.zeros(shape, dtype=torch.float64), "sum")


def add_to(metric: Metric, name: str, value: torch.Tensor) -> None:
    """Adds to the sum. Where the device keeps it in float32, as Neumaier does (Z. Angew. Math. Mech. 54, 1974): a sum
    of many batches is then as exact as one of few.
    """
    total: torch.Tensor = getattr(metric, name)
    if value.device != total.device:
        value = value.to(total.device)
    if total.dtype == torch.float64:
        total += value
        return
    value = value.to(total.dtype)
    raised = total + value
    lost = torch.where(total.abs() >= value.abs(), (total - raised) + value, (value - raised) + total)
    getattr(metric, name + LOST).add_(lost)
    total.copy_(raised)


def sum_of(metric: Metric, name: str) -> torch.Tensor:
    """The sum; of infinite and NaN parts what floats make of them."""
    total: torch.Tensor = getattr(metric, name)
    lost = getattr(metric, name + LOST)
    return torch.where(total.isfinite(), total + lost, total)
