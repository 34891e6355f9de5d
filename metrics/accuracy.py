"""The share of correct predictions."""

from __future__ import annotations

from typing import Any

import torch

from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import ClassificationMetric
from leyden.metrics.errors import require_samples
from leyden.metrics.states import widened


class Accuracy(ClassificationMetric):
    """Correct predictions / all predictions; see `ClassificationMetric` for what (y_pred, y) may be.

    With `is_multilabel` a sample is right if all its labels are (those that are not left out). For whole numbers of one
    shape, y_pred and y may also be class indices. Each pixel of an image counts as a prediction.
    """

    correct: torch.Tensor
    total: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        is_multilabel: bool = False,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        threshold: float = 0.5,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(
            output_transform, is_multilabel, device, skip_unrolling, threshold=threshold, ignore_index=ignore_index
        )
        self.add_state("correct", torch.tensor(0), "sum")
        self.add_state("total", 0, "sum")

    def update(self, output: Any) -> None:
        kind, y_pred, y, _, kept = self.labels(output)
        right = y_pred == y
        if kind == "multilabel":
            right, kept = (right | ~kept).all(1), kept.any(1)
        self.correct += (right & kept).sum().to(self.correct.device)
        self.total += len(y)

    def labels_seen(self) -> int:
        return self.total

    def compute(self) -> torch.Tensor:
        require_samples(self, self.total)
        return self.sound(widened(self.correct) / (self.total - self.marks[0]))
