"""What a trainer's metrics measure, since the trainer's output is something else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class MeasuredPair:
    """The last (prediction, target), kept from the first metric on that wants it."""

    def __init__(self) -> None:
        self.pair: Any = None
        self.wanted = False
        self._led: set[int] = set()  # by the ids of metrics, which the engine keeps

    def lead_to(self, metric: Any) -> None:
        """Gives it to the metric, and to those it is derived from, in place of the engine's output."""
        self.wanted = True
        for source in metric.sources() if hasattr(metric, "sources") else (metric,):
            if id(source) not in self._led:
                self._led.add(id(source))
                transform = getattr(source, "output_transform", None)
                source.output_transform = functools.partial(self._measure, transform)

    def _measure(self, transform: Callable[[Any], Any] | None, output: Any) -> Any:
        return self.pair if transform is None else transform(self.pair)
