"""Errors of predicted numbers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import require_samples
from leyden.metrics.outputs import described, tensor_pair
from leyden.metrics.sums import LOST, add_sum, add_to, sum_of


def numbers(metric: object, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(y_pred, y) of one shape, in the dtype of both, at least float32.

    Raises ValueError for different shapes, TypeError for complex numbers.
    """
    y_pred, y = tensor_pair(metric, output)
    if y_pred.shape != y.shape:
        raise ValueError(
            f"{type(metric).__name__} needs y_pred and y of one shape, but found {described(y_pred)} "
            f"and {described(y)}; give it an output_transform that reshapes one of them"
        )
    if y_pred.is_complex() or y.is_complex():
        raise TypeError(f"{type(metric).__name__} takes real numbers, but found {described((y_pred, y))}")
    dtype = torch.promote_types(torch.promote_types(y_pred.dtype, y.dtype), torch.float32)
    return y_pred.to(dtype), y.to(dtype)


class MeanOfErrors(Metric):
    """Base of metrics that are the mean, over all elements, of something that each pair of numbers gives.

    Takes (y_pred, y) of one shape, (N, ...). Differences are taken in the dtype of the data, at least float32, and
    summed in float64 (on devices without it in float32, compensated). NaN in the data makes the value NaN. No element:
    NotComputableError.

    Raises ValueError for different shapes: (N, 1) against (N,) would compare everything with everything.
    """

    later_states = ("total" + LOST,)

    total: torch.Tensor
    count: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)
        add_sum(self, "total")
        self.add_state("count", 0, "sum")

    def update(self, output: Any) -> None:
        y_pred, y = numbers(self, output)
        add_to(self, "total", self.errors(y_pred - y).sum(dtype=self.total.dtype))
        self.count += y.numel()

    def compute(self) -> torch.Tensor:
        require_samples(self, self.count)
        return sum_of(self, "total") / self.count

    @abstractmethod
    def errors(self, difference: torch.Tensor) -> torch.Tensor:
        """What is averaged, of each difference."""


class MeanSquaredError(MeanOfErrors):
    """The mean of (y_pred - y)² over all elements; both of one shape, (N, ...). See `MeanOfErrors` for dtypes, NaN and
    errors.
    """

    def errors(self, difference: torch.Tensor) -> torch.Tensor:
        return difference.square()


class RootMeanSquaredError(MeanSquaredError):
    """The square root of the mean of (y_pred - y)² over all elements: an error in the unit of y. See `MeanOfErrors`."""

    def compute(self) -> torch.Tensor:
        mean: torch.Tensor = super().compute()
        return mean.sqrt()


class MeanAbsoluteError(MeanOfErrors):
    """The mean of |y_pred - y| over all elements; both of one shape, (N, ...). See `MeanOfErrors`."""

    def errors(self, difference: torch.Tensor) -> torch.Tensor:
        return difference.abs()
