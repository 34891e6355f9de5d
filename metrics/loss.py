"""A loss function as a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from leyden.metrics.base import Metric, OutputTransform
from leyden.metrics.errors import require_samples
from leyden.metrics.outputs import described


class Loss(Metric):
    """The mean of a loss over the samples of an epoch: each batch's value, weighted by the batch's size.

    `loss_fn(y_pred, y)` gives the mean over the batch, a scalar. The output is (y_pred, y), or (y_pred, y, keyword
    arguments of loss_fn). `batch_size(y)` says how many samples a batch has. An empty batch changes nothing.

    Raises TypeError for another output, ValueError for a loss that is not a scalar.
    """

    total: torch.Tensor
    count: int

    def __init__(
        self,
        loss_fn: Callable[..., torch.Tensor],
        output_transform: OutputTransform | None = None,
        batch_size: Callable[[Any], int] = len,
    ) -> None:
        super().__init__(output_transform)
        self.loss_fn = loss_fn
        self.batch_size = batch_size
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), "sum")
        self.add_state("count", 0, "sum")

    def update(self, output: Any) -> None:
        if not isinstance(output, tuple | list) or len(output) not in (2, 3):
            raise TypeError(
                f"Loss takes (y_pred, y) or (y_pred, y, keyword arguments), but found {described(output)}; "
                "give it an output_transform that makes such a tuple of the engine's output"
            )
        y_pred, y, *rest = output
        options: Mapping[str, Any] = rest[0] if rest else {}
        size = self.batch_size(y)
        if size == 0:
            return
        loss = self.loss_fn(y_pred, y, **options)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise ValueError(
                f"the loss_fn of Loss must give the mean over the batch, a scalar, but gave {described(loss)}; "
                'use reduction="mean"'
            )
        self.total += loss.detach().reshape(()).to(self.total.dtype) * size
        self.count += size

    def compute(self) -> torch.Tensor:
        require_samples(self, self.count)
        return self.total / self.count
