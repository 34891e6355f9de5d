"""A value of every iteration, smoothed, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import NotComputableError
from leyden.metrics.outputs import described
from leyden.metrics.states import StateValue, moved, widened
from leyden.metrics.usage import EPOCH_WISE, MetricUsage, RunningBatchWise, SingleEpochRunningBatchWise

USAGES = {SingleEpochRunningBatchWise.usage_name: True, RunningBatchWise.usage_name: False}
"""Whether the average begins with each epoch."""


class RunningAverage(Metric):
    """The exponentially decayed average of a number.

    `value = alpha * value + (1 - alpha) * number`, begun with the first number. That is the engine's output (through
    `output_transform`), or the value of the metric `src` on that one batch; `src` is then this average's own, and must
    not be attached beside it. `state.metrics[name]` follows at each iteration, for this rank; at the end of an epoch it
    is the mean over the ranks, while each goes on from its own. `epoch_bound=False`: it goes on from epoch to epoch;
    `attach(..., usage="running_batch_wise")` says the same.

    Floating tensors are averaged in their dtype, at least float32, other numbers in float64. In a derived metric the
    average is seen at the end of each epoch only.

    Raises TypeError for an output that is not one number.
    """

    required_output_keys = None
    skip_unrolling = True
    per_iteration = True

    value: torch.Tensor
    ranks: int

    def __init__(
        self,
        src: Metric | None = None,
        alpha: float = 0.98,
        output_transform: OutputTransform | None = None,
        epoch_bound: bool | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)
        if src is not None and not isinstance(src, Metric):
            raise TypeError(
                f"the source of RunningAverage, src, must be a metric or None, but is {src!r}; "
                "a function goes to output_transform="
            )
        if src is not None and output_transform is not None:
            raise ValueError("RunningAverage takes a source or an output_transform; give the transform to the source")
        weight: object = alpha
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise TypeError(f"alpha is the weight of the old value, a number, but is {weight!r}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is the weight of the old value, above 0 and at most 1, but is {alpha}")
        self.src = src
        self.alpha = float(alpha)
        self.epoch_bound = epoch_bound is not False
        self.add_state("value", torch.tensor(0.0, dtype=torch.float64), "sum")
        self.add_state("ranks", 0, "sum")

    def private(self) -> tuple[Metric, ...]:
        return () if self.src is None else self.src.sources()

    def take_usage(self, usage: MetricUsage) -> MetricUsage:
        if usage.usage_name not in USAGES:
            raise ValueError(
                f"{type(self).__name__} is a value of each iteration, smoothed, and takes the usages "
                f"{', '.join(USAGES)}, but got {usage}"
            )
        self.epoch_bound = USAGES[usage.usage_name]
        return EPOCH_WISE

    def observe(self, output: Any) -> None:
        if self.src is not None:
            self.src.reset()
            self.src.observe(output)
            try:
                output = self.src.compute()
            except NotComputableError:
                return  # the batch has nothing to measure
        elif self.output_transform is not None:
            output = self.output_transform(output)
        value = self.value
        if self._settled and type(output) is torch.Tensor and output.dtype is value.dtype and output.ndim == 0:
            value.lerp_(output.detach(), 1 - self.alpha)
        else:
            self._take(output)

    def update(self, output: Any) -> None:
        self._take(output)

    def compute(self) -> torch.Tensor:
        return self.value / self.ranks

    def load_state_dicts(self, states: Sequence[Mapping[str, torch.Tensor | int]], *, first: bool) -> None:
        """Goes on from the mean of these averages, whichever rank it is: an average, unlike a sum, can't be divided
        among ranks.
        """
        begun = [state for state in states if state["ranks"]]
        super().load_state_dicts(begun, first=bool(begun))

    def even_out(self, whole: Mapping[str, StateValue]) -> None:
        """Goes on from the mean over all ranks; `whole`: the states of all, added up."""
        value, ranks = whole["value"], whole["ranks"]
        assert isinstance(value, torch.Tensor)
        assert isinstance(ranks, int)
        if ranks:
            self.load_state_dict({"value": value / ranks, "ranks": 1, "_updates": 1})

    def _take(self, output: Any) -> None:
        """The slow path: the first number, and numbers of another type, dtype or shape."""
        number = self._number(output)
        if self.ranks == 0:
            # In 16 bits the average would stand still; the tensor is new, since it is changed in place.
            dtype = torch.promote_types(number.dtype, torch.float32)
            self.value = moved(number, number.device if self._wish is None else self._wish, dtype, copy=True)
            self._updates = self.ranks = 1
        else:
            if not self._settled:
                self.value = self.value.to(number.device if self._wish is None else self._wish)
            if self.ranks > 1:  # the sum of several ranks' averages
                self.value, self.ranks = self.value / self.ranks, 1
            self.value.lerp_(number.to(self.value), 1 - self.alpha)
        self._settled = True

    def _number(self, output: Any) -> torch.Tensor:
        if isinstance(output, torch.Tensor) and output.numel() == 1 and not output.is_complex():
            number = output.detach().reshape(())
            return number if number.is_floating_point() else widened(number)
        if isinstance(output, Real):
            return torch.tensor(float(output), dtype=torch.float64)
        hint = ""
        if isinstance(output, torch.Tensor):
            hint = f" ({math.prod(output.shape)} of them; .mean(), perhaps)"
        raise TypeError(
            f"RunningAverage averages one number an iteration, but found {described(output)}{hint}; "
            "give it an output_transform that picks one of the engine's output"
        )
