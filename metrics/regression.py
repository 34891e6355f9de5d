"""Errors of predicted numbers."""

from __future__ import annotations

from typing import Any

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import require_samples
from leyden.metrics.outputs import described, tensor_pair


class MeanSquaredError(Metric):
    """The mean of (y_pred - y)**2 over all elements; both of one shape, (N, ...).

    Differences are taken in the dtype of the data, at least float32, and summed in float64.

    Raises ValueError for different shapes: (N, 1) against (N,) would compare everything with everything.
    """

    total: torch.Tensor
    count: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), "sum")
        self.add_state("count", 0, "sum")

    def update(self, output: Any) -> None:
        y_pred, y = tensor_pair(self, output)
        if y_pred.shape != y.shape:
            raise ValueError(
                f"{type(self).__name__} needs y_pred and y of one shape, but found {described(y_pred)} "
                f"and {described(y)}; give it an output_transform that reshapes one of them"
            )
        dtype = torch.promote_types(torch.promote_types(y_pred.dtype, y.dtype), torch.float32)
        squares = (y_pred.to(dtype) - y.to(dtype)).square().sum(dtype=self.total.dtype)
        self.total += squares.to(self.total.device)
        self.count += y.numel()

    def compute(self) -> torch.Tensor:
        require_samples(self, self.count)
        return self.total / self.count
