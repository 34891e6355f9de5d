"""What a learning rate range test found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leyden.handlers.training.drawing import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SKIPPED_FIRST = 10
SKIPPED_LAST = 5
"""Points that are left out: the mean of the first losses has not settled, and the last ones rise because the loss
diverges.
"""
FEWEST = 3


@dataclass
class RangeTest:
    """Losses by learning rate: `losses[i]` is the loss of the batches whose gradient is then stepped with `lrs[i]`.

    `smoothed`: their mean with exponential weights, a = (1 - s) a + s loss from a = 0, unbiased as in Adam:
    smoothed[i] = a / (1 - (1 - s)^(i + 1)), where s is `smoothing`.
    """

    smoothing: float = 0.05
    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    suggestion: float | None = None
    """Where the smoothed loss falls fastest; None where there is no such place."""
    _average: float = 0.0
    _best: float = math.inf

    def add(self, lr: float, loss: float) -> None:
        """Takes the next point."""
        self._average += self.smoothing * (loss - self._average)
        smoothed = self._average / (1 - (1 - self.smoothing) ** (len(self.losses) + 1))
        self.lrs.append(lr)
        self.losses.append(loss)
        self.smoothed.append(smoothed)
        self._best = min(self._best, smoothed)

    def diverged(self, factor: float) -> bool:
        """True if the smoothed loss exceeds `factor` times its least value; a loss below 0 may rise as far from it."""
        return self.smoothed[-1] - self._best > (factor - 1) * abs(self._best)

    def steepest(self) -> float | None:
        """The learning rate at the most negative slope of the smoothed loss over log(lr), by central differences,
        without the first and the last points; None for too few points, or where the loss never falls.
        """
        lrs, smoothed = self.lrs[SKIPPED_FIRST:-SKIPPED_LAST], self.smoothed[SKIPPED_FIRST:-SKIPPED_LAST]
        if len(lrs) < FEWEST:
            return None
        least, place = 0.0, None
        for i in range(len(lrs)):
            before, after = max(i - 1, 0), min(i + 1, len(lrs) - 1)
            slope = (smoothed[after] - smoothed[before]) / math.log(lrs[after] / lrs[before])
            if slope < least:
                least, place = slope, i
        return None if place is None else lrs[place]

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draws the losses over the learning rate, into `axes` or a new figure, by matplotlib."""
        if axes is None:
            axes = new_axes()
        axes.plot(self.lrs, self.losses, color="0.8", label="loss")
        axes.plot(self.lrs, self.smoothed, label="smoothed")
        if self.suggestion is not None:
            height = self.smoothed[self.lrs.index(self.suggestion)]
            axes.plot([self.suggestion], [height], "o", label=f"suggestion {self.suggestion:.2e}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend()
        return axes
