"""Precision and recall, by class or averaged."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import torch

from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import ClassificationMetric, Labels, bin_counts
from leyden.metrics.errors import require_samples
from leyden.metrics.states import widened

Average: TypeAlias = Literal["macro", "micro", "weighted"] | bool | None


class ByClass(ClassificationMetric):
    """Counts, for each class, right predictions, predictions and targets."""

    binary_only = True

    counts: torch.Tensor
    total: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        average: Average = False,
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
        if average not in (None, False, True, "macro", "micro", "weighted"):
            raise ValueError(f'average is False, None, "macro" (or True), "micro" or "weighted", but got {average!r}')
        self.average = "macro" if average is True else average
        self.number_instead = f'{type(self).__name__}(average="macro")' if average is None else ""
        self.add_state("counts", torch.zeros(0, dtype=torch.int64), "sum")
        self.add_state("total", 0, "sum")

    def update(self, output: Any) -> None:
        labels = self.labels(output)
        counts = _counts(labels).to(self.counts.device)
        if labels.kind == "binary" and self.average is False:
            counts = counts[:, 1:]  # of the positive class alone
        self.counts = self.counts + counts if self.counts.numel() else counts
        self.total += len(labels.y)

    def labels_seen(self) -> int:
        return self.total

    def compute(self) -> torch.Tensor:
        require_samples(self, self.total)
        right, predicted, true = widened(self.counts)
        if self.average == "micro":
            return self.sound(self.by_counts(right.sum(), predicted.sum(), true.sum()))
        by_class = self.sound(self.by_counts(right, predicted, true))
        if self.average == "macro":
            return by_class[self._averaged(len(by_class))].mean()
        if self.average == "weighted":
            return ratio((by_class * true).sum(), true.sum())
        return by_class if len(by_class) > 1 else by_class[0]

    def _averaged(self, classes: int) -> list[int]:
        """The classes that "macro" averages over: one that is left out does not count as 0."""
        return [each for each in range(classes) if each != self.ignore_index]

    @abstractmethod
    def by_counts(self, right: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """The value, from how many predictions are right, how many there are, and how many targets."""


class Precision(ByClass):
    """For each class, the share of its predictions that are correct; 0 for a class that was never predicted.

    `average=None`: by class, {0: ..., 1: ...}. False: the same, but for binary outputs the number of class 1. "macro"
    (or True): the mean over all classes but that of `ignore_index`. "micro": all classes counted together. "weighted":
    the mean by how often each class occurs. Binary outputs are averaged over the classes 0 and 1. See
    `ClassificationMetric` for what (y_pred, y) may be, and for what is left out.
    """

    def by_counts(self, right: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return ratio(right, predicted)


class Recall(ByClass):
    """For each class, the share of its samples that were predicted as such; 0 for a class that never occurs.

    Averages, and what is left out, are those of `Precision`.
    """

    def by_counts(self, right: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return ratio(right, true)


def _counts(labels: Labels) -> torch.Tensor:
    """(3, classes): right predictions, predictions, targets."""
    kind, y_pred, y, classes, kept = labels
    if kind == "multilabel":
        y_pred, y = y_pred.bool(), y.bool()
        if kept is not None:
            y_pred, y = y_pred & kept, y & kept
        return torch.stack([(y_pred & y).sum(0), y_pred.sum(0), y.sum(0)])
    y_pred, y = y_pred.long(), y.long()
    true, predicted = y, y_pred
    if kept is not None:
        # What can't be meant is told later, but must not lie outside of the bins.
        counted = kept & (y >= 0) & (y < classes) & (y_pred >= 0) & (y_pred < classes)
        # One bin more takes what does not count: picking the rest out would have to wait for the device.
        true = torch.where(counted, y, classes)
        predicted = torch.where(counted, y_pred, classes)
    right = torch.where(y_pred == y, true, classes)
    width = classes + 1
    bins = bin_counts(torch.cat([right, predicted + width, true + 2 * width]), 3 * width)
    return bins.view(3, width)[:, :classes]


def ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """part / whole, and 0 where the whole is 0."""
    return part / torch.where(whole > 0, whole, 1)
