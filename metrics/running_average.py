"""A value of every iteration, smoothed, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from leyden.metrics.base import Metric, OutputTransform
from leyden.metrics.outputs import described


class RunningAverage(Metric):
    """The exponentially decayed average of a number.

    `value = alpha * value + (1 - alpha) * number`, begun with the first number. That is the engine's output (through
    `output_transform`), or the value of the metric `source` on that one batch; `source` is then this average's own, and
    must not be attached beside it. `state.metrics[name]` follows at each iteration, for this rank; at the end of an
    epoch it is the mean over the ranks, while each goes on from its own. `epoch_bound=False`: it goes on from epoch to
    epoch.

    In a derived metric it is seen at the end of each epoch only.

    Raises TypeError for an output that is not one number.
    """

    required_output_keys = None
    skip_unrolling = True
    per_iteration = True

    value: torch.Tensor
    ranks: int

    def __init__(
        self,
        source: Metric | None = None,
        output_transform: OutputTransform | None = None,
        alpha: float = 0.98,
        epoch_bound: bool = True,
    ) -> None:
        super().__init__(output_transform)
        if source is not None and not isinstance(source, Metric):
            raise TypeError(
                f"the source of RunningAverage must be a metric or None, but is {source!r}; "
                "a function goes to output_transform="
            )
        if source is not None and output_transform is not None:
            raise ValueError("RunningAverage takes a source or an output_transform; give the transform to the source")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is the weight of the old value, above 0 and at most 1, but is {alpha}")
        self.source = source
        self.alpha = alpha
        self.epoch_bound = epoch_bound
        self.add_state("value", torch.tensor(0.0, dtype=torch.float64), "sum")
        self.add_state("ranks", 0, "sum")

    def private(self) -> tuple[Metric, ...]:
        return () if self.source is None else self.source.sources()

    def observe(self, output: Any) -> None:
        if self.source is not None:
            self.source.reset()
            self.source.observe(output)
            output = self.source.compute()
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
        """Every rank goes on from the mean of those that there were: an average is no sum to be shared out."""
        self.reset()
        begun = [state for state in states if state["ranks"]]
        if begun:
            mean = torch.stack([torch.as_tensor(state["value"]) for state in begun]).mean(0)
            self.load_state_dict({**begun[0], "value": mean})

    def _take(self, output: Any) -> None:
        """What does not go the straight way: the first number, and numbers of another type, dtype or shape."""
        number = self._number(output)
        if self.ranks == 0:
            # In 16 bits the average would stand still; the tensor is new, since it is changed in place.
            dtype = torch.promote_types(number.dtype, torch.float32)
            self.value = number.to(dtype, copy=True)
            self._updates = self.ranks = 1
        else:
            if not self._settled:
                self.value = self.value.to(number.device)
            self.value.lerp_(number.to(self.value), 1 - self.alpha)
        self._settled = True

    def _number(self, output: Any) -> torch.Tensor:
        if isinstance(output, torch.Tensor) and output.numel() == 1 and not output.is_complex():
            return output.detach().reshape(())
        if isinstance(output, int | float):
            return torch.tensor(float(output))
        hint = ""
        if isinstance(output, torch.Tensor):
            hint = f" ({math.prod(output.shape)} of them; .mean(), perhaps)"
        raise TypeError(
            f"RunningAverage averages one number an iteration, but found {described(output)}{hint}; "
            "give it an output_transform that picks one of the engine's output"
        )
