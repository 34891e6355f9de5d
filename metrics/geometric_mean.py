"""The geometric mean of what a step gives."""

from __future__ import annotations

import math
from typing import Any

import torch

from leyden.metrics.mean import Mean


class GeometricMean(Mean):
    """The geometric mean of a number, or of all elements of a tensor, over an epoch: exp(mean of log).

    A pair (value, count) weighs the value by a whole number, as in `Mean`. A zero makes it 0, a negative number or NaN
    makes it NaN. Logarithms are taken in the dtype of the data, at least float32, and summed in float64. No number:
    NotComputableError. Raises TypeError for any other output.
    """

    def taken(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            number = float(value)
            return math.log(number) if number > 0 else -math.inf if number == 0 else math.nan
        return (value if value.is_floating_point() else value.to(self.total.dtype)).log()

    def compute(self) -> torch.Tensor:
        mean: torch.Tensor = super().compute()
        return mean.exp()
