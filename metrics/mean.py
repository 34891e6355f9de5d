"""The mean of what a step gives."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import require_samples
from leyden.metrics.outputs import described


class Mean(Metric):
    """The mean of a number, or of all elements of a tensor, over an epoch.

    A pair (value, count) weighs the value by a whole number: a batch's mean by its size. Sums are kept in float64.

    Raises TypeError for any other output.
    """

    required_output_keys = None
    skip_unrolling = True

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
        value, count = output if isinstance(output, tuple | list) and len(output) == 2 else (output, 1)
        is_number = not value.is_complex() if isinstance(value, torch.Tensor) else isinstance(value, Real)
        if not is_number or not isinstance(count, Integral):
            raise TypeError(
                f"Mean takes a number, a tensor, or (value, whole number), but found {described(output)}; "
                "give it an output_transform that picks one of the engine's output"
            )
        if isinstance(value, torch.Tensor):
            self.total += value.sum(dtype=self.total.dtype).to(self.total.device) * int(count)
            self.count += value.numel() * int(count)
        else:
            self.total += float(value) * int(count)
            self.count += int(count)

    def compute(self) -> torch.Tensor:
        require_samples(self, self.count)
        return self.total / self.count
