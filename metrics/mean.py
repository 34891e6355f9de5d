"""The mean of what a step gives."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import require_samples
from leyden.metrics.outputs import described
from leyden.metrics.sums import LOST, add_sum, add_to, sum_of


class Mean(Metric):
    """The mean of a number, or of all elements of a tensor, over an epoch.

    A pair (value, count) weighs the value by a whole number: a batch's mean by its size. Sums are kept in float64 (on
    devices without it in float32, compensated). NaN makes the mean NaN. No number: NotComputableError.

    Raises TypeError for any other output.
    """

    required_output_keys = None
    skip_unrolling = True
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
        value, count = output if isinstance(output, tuple | list) and len(output) == 2 else (output, 1)
        is_number = not value.is_complex() if isinstance(value, torch.Tensor) else isinstance(value, Real)
        if not is_number or not isinstance(count, Integral):
            raise TypeError(
                f"Mean takes a number, a tensor, or (value, whole number), but found {described(output)}; "
                "give it an output_transform that picks one of the engine's output"
            )
        if isinstance(value, torch.Tensor):
            add_to(self, "total", self.taken(value).sum(dtype=self.total.dtype) * int(count))
            self.count += value.numel() * int(count)
        else:
            self._add_number(self.taken(value) * int(count))
            self.count += int(count)

    def compute(self) -> torch.Tensor:
        require_samples(self, self.count)
        return sum_of(self, "total") / self.count

    def taken(self, value: Any) -> Any:
        """What of a tensor's elements, or of a number, is averaged."""
        return value if isinstance(value, torch.Tensor) else float(value)

    def _add_number(self, number: float) -> None:
        if self.total.dtype == torch.float64:
            self.total += number  # without a tensor of its own
        else:
            add_to(self, "total", torch.full_like(self.total, number))
