"""Precision and recall, by class or averaged."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import torch

from leyden.metrics.base import OutputTransform
from leyden.metrics.classification import ClassificationMetric, Labels, bin_counts
from leyden.metrics.errors import require_samples
from leyden.metrics.states import widened

Average: TypeAlias = Literal["macro", "micro", "weighted"] | bool | None


class _ByClass(ClassificationMetric):
    """Counts, for each class, right predictions, predictions and targets."""

    counts: torch.Tensor
    total: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        average: Average = None,
        is_multilabel: bool = False,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(output_transform, is_multilabel, threshold)
        if average not in (None, False, True, "macro", "micro", "weighted"):
            raise ValueError(f'average is None, "macro" (or True), "micro" or "weighted", but got {average!r}')
        self.average = {True: "macro", False: None}.get(average, average) if isinstance(average, bool) else average
        self.add_state("counts", torch.zeros(0, dtype=torch.int64), "sum")
        self.add_state("total", 0, "sum")

    def update(self, output: Any) -> None:
        labels = self.labels(output)
        if labels.kind == "binary":
            self._check_binary(labels)
        counts = _counts(labels)
        if labels.kind == "binary" and self.average is None:
            counts = counts[:, 1:]  # of the positive class alone
        self.counts = self.counts + counts if self.counts.numel() else counts
        self.total += len(labels.y)

    def compute(self) -> torch.Tensor:
        require_samples(self, self.total)
        right, predicted, true = widened(self.counts)
        whole = self._whole(predicted, true)
        if self.average == "micro":
            return _ratio(right.sum(), whole.sum())
        by_class = _ratio(right, whole)
        if self.average == "macro":
            return by_class.mean()
        if self.average == "weighted":
            return _ratio((by_class * true).sum(), true.sum())
        return by_class if len(by_class) > 1 else by_class[0]

    def _check_binary(self, labels: Labels) -> None:
        """On the CPU, where a look costs no waiting; elsewhere what is neither 0 nor 1 is left out."""
        for name, values in (("y_pred", labels.y_pred), ("y", labels.y)):
            if values.device.type == "cpu" and values.numel() and values.max() > 1:
                raise ValueError(
                    f"{type(self).__name__} found {values.max().item()} in {name}, but y_pred and y of one shape are "
                    "binary, 0 or 1; for more classes y_pred needs scores (N, C, ...), as one_hot(y_pred, C) gives"
                )

    @abstractmethod
    def _whole(self, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """What right predictions are divided by."""


class Precision(_ByClass):
    """Of what was predicted as a class, the share that is of it; 0 for a class that was never predicted.

    `average=None`: by class, {0: ..., 1: ...}; for binary outputs the number of class 1. "macro" (or True): their mean
    over all classes. "micro": all classes counted together. "weighted": the mean by how often each class occurs. Binary
    outputs are averaged over the classes 0 and 1. Samples whose y is no class (an ignore index of -100, say) are left
    out. See `ClassificationMetric` for what (y_pred, y) may be.
    """

    def _whole(self, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return predicted


class Recall(_ByClass):
    """Of what is of a class, the share that was predicted as it; 0 for a class that never occurs.

    Averages, and what is left out, are those of `Precision`.
    """

    def _whole(self, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return true


def _counts(labels: Labels) -> torch.Tensor:
    """(3, classes): right predictions, predictions, targets."""
    _, y_pred, y, classes = labels
    if labels.kind == "multilabel":
        y_pred, y = y_pred.bool(), y.bool()
        return torch.stack([(y_pred & y).sum(0), y_pred.sum(0), y.sum(0)])
    y_pred, y = y_pred.long(), y.long()
    valid = (y >= 0) & (y < classes)
    # One bin more takes what does not count: picking the rest out would have to wait for the device.
    true = torch.where(valid, y, classes)
    counted = valid & (y_pred >= 0) & (y_pred < classes) if labels.kind == "binary" else valid
    predicted = torch.where(counted, y_pred, classes)
    right = torch.where(y_pred == y, true, classes)
    width = classes + 1
    bins = bin_counts(torch.cat([right, predicted + width, true + 2 * width]), 3 * width)
    return bins.view(3, width)[:, :classes]


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """part / whole, and 0 where the whole is 0."""
    return part / whole.clamp(min=1)
