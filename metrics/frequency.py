"""How many items a second an engine goes through."""

from __future__ import annotations

import time
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch

from leyden.engine.values import as_whole
from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import NotComputableError, require_samples
from leyden.metrics.outputs import described
from leyden.metrics.states import widened


class Frequency(Metric):
    """Items a second since the epoch began: samples, tokens, what `output_transform` makes of the output, a number of
    items or a tensor of one number. `Frequency(lambda output: len(output[1]))`.

    Over several ranks: the items of all, divided by the time of the slowest. A run that goes on in mid-epoch does not
    count the time in between. Time is the host's: an accelerator may still be at work on what was counted. A negative
    number or NaN is not looked for. Before the first update: NotComputableError. Raises TypeError for any other output.
    """

    required_output_keys = None
    skip_unrolling = True

    items: torch.Tensor
    counted: int
    nanoseconds: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)
        self.add_state("items", torch.tensor(0, dtype=torch.int64), "sum")
        self.add_state("counted", 0, "sum")
        self.add_state("nanoseconds", 0, "max")
        self._seen_at = time.perf_counter_ns()

    def reset(self) -> None:
        super().reset()
        self._seen_at = time.perf_counter_ns()

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor | int]) -> None:
        super().load_state_dict(state_dict)
        self._seen_at = time.perf_counter_ns()

    def update(self, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.numel() == 1 and not output.is_complex():
            self.items += output.reshape(()).to(self.items)
        elif (number := as_whole(output)) is not None:
            self.counted += number
        else:
            hint = "a whole number" if isinstance(output, Real) else "a whole number or a tensor of one"
            raise TypeError(
                f"Frequency counts items, {hint}, but found {described(output)}; give it an output_transform that says "
                "how many items an output stands for: Frequency(lambda output: len(output[1]))"
            )
        now = time.perf_counter_ns()
        self.nanoseconds += now - self._seen_at
        self._seen_at = now

    def compute(self) -> torch.Tensor:
        require_samples(self, self._updates)
        if self.nanoseconds == 0:
            raise NotComputableError("Frequency has seen no time pass, so there is no number of items a second")
        return widened(self.items + self.counted) / (self.nanoseconds / 1e9)
