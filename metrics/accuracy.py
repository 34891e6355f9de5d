"""The share of correct predictions."""

from __future__ import annotations

from typing import Any

import torch

from leyden.engine.values import whole_number
from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import ClassificationMetric
from leyden.metrics.errors import require_samples
from leyden.metrics.label_shapes import flat
from leyden.metrics.outputs import described
from leyden.metrics.states import widened


class Accuracy(ClassificationMetric):
    """Correct predictions / all predictions; see `ClassificationMetric` for what (y_pred, y) may be.

    With `is_multilabel` a sample is right if all its labels are (those that are not left out). For whole numbers of one
    shape, y_pred and y may also be class indices. Each pixel of an image counts as a prediction. `top_k`: a prediction
    is right if its class is among the k of the highest scores; for scores (N, C, ...) only.

    Classes that never occur change nothing. No sample, or none that is not left out: NotComputableError. Raises
    ValueError for a top_k above the number of classes, and for other data than multiclass scores under top_k > 1.
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
        top_k: int = 1,
    ) -> None:
        super().__init__(
            output_transform, is_multilabel, device, skip_unrolling, threshold=threshold, ignore_index=ignore_index
        )
        self.top_k = whole_number("top_k", top_k, 1)
        self.add_state("correct", torch.tensor(0), "sum")
        self.add_state("total", 0, "sum")

    def update(self, output: Any) -> None:
        kind, y_pred, y, classes, kept = self.labels(output)
        right = y_pred == y if self.top_k == 1 else self._among_the_best(output, y, kind, classes)
        if kind == "multilabel":
            right = (right if kept is None else right | ~kept).all(1)
            kept = None if kept is None else kept.any(1)
        if kept is not None:
            right = right & kept
        found = right.count_nonzero()
        self.correct += found if found.device == self.correct.device else found.to(self.correct.device)
        self.total += y.shape[0]

    def _among_the_best(self, output: Any, y: torch.Tensor, kind: str, classes: int) -> torch.Tensor:
        if kind != "multiclass" or self.top_k > classes:
            raise ValueError(
                f"Accuracy(top_k={self.top_k}) needs scores (N, C, ...) of at least {self.top_k} classes as y_pred and "
                f"class indices as y, but found {kind} ones of {classes} classes: {described(output)}"
            )
        best = output[0].topk(self.top_k, 1).indices
        return torch.stack([flat(each) == y for each in best.unbind(1)]).any(0)

    def labels_seen(self) -> int:
        return self.total

    def compute(self) -> torch.Tensor:
        require_samples(self, self.total)
        return self.sound(widened(self.correct) / (self.total - self.marks[0]))
