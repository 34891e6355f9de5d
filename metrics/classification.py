"""From what a classifier gives to decided labels: binary, multiclass or multilabel."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from leyden.metrics.base import Metric, OutputTransform
from leyden.metrics.outputs import described, tensor_pair


class Labels(NamedTuple):
    """Decided and true labels: class indices or 0 and 1, of shape (M,); for "multilabel" (M, classes)."""

    kind: Literal["binary", "multiclass", "multilabel"]
    y_pred: torch.Tensor
    y: torch.Tensor
    classes: int


class ClassificationMetric(Metric):
    """Base of metrics on decided labels. What `(y_pred, y)` means is told by the shapes:

    - multiclass: scores (N, C, ...) and class indices (N, ...); the class is the index of the highest score;
    - binary: both (N, ...), or y_pred (N, 1, ...);
    - multilabel, if `is_multilabel`: both (N, C, ...).

    For the last two a floating y_pred is a score: above `threshold` it is 1. 0.5 fits probabilities, 0.0 fits logits.

    Raises ValueError for other shapes, and where the kind or the number of classes changes between batches.
    """

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        is_multilabel: bool = False,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(output_transform)
        self.is_multilabel = is_multilabel
        self.threshold = threshold
        self._seen: tuple[str, int] | None = None

    def reset(self) -> None:
        super().reset()
        self._seen = None

    def labels(self, output: Any) -> Labels:
        """The labels of a batch."""
        y_pred, y = tensor_pair(self, output)
        labels = self._multilabel(y_pred, y) if self.is_multilabel else self._exclusive(y_pred, y)
        if self._seen is not None and self._seen != (labels.kind, labels.classes):
            kind, classes = self._seen
            raise ValueError(
                f"{type(self).__name__} began with {kind} outputs of {classes} classes, but now found "
                f"{labels.kind} ones of {labels.classes}: {described((y_pred, y))}"
            )
        self._seen = (labels.kind, labels.classes)
        return labels

    def _exclusive(self, y_pred: torch.Tensor, y: torch.Tensor) -> Labels:
        if y_pred.ndim == y.ndim + 1 and y_pred.ndim > 1 and (len(y_pred), *y_pred.shape[2:]) == y.shape:
            classes = y_pred.shape[1]
            if classes > 1:
                if y.is_floating_point():
                    raise TypeError(
                        f"{type(self).__name__} needs class indices as y, whole numbers, but found {described(y)}"
                    )
                return Labels("multiclass", y_pred.argmax(1).reshape(-1), y.reshape(-1), classes)
            y_pred = y_pred.squeeze(1)
        if y_pred.shape != y.shape or y.ndim == 0:
            raise ValueError(
                f"{type(self).__name__} takes scores (N, C, ...) and classes (N, ...), or both (N, ...), "
                f"but found {described((y_pred, y))}; give it an output_transform that makes such a pair"
            )
        return Labels("binary", self._decided(y_pred).reshape(-1), y.reshape(-1), 2)

    def _multilabel(self, y_pred: torch.Tensor, y: torch.Tensor) -> Labels:
        if y_pred.shape != y.shape or y.ndim < 2 or y.shape[1] < 2:
            raise ValueError(
                f"{type(self).__name__}(is_multilabel=True) takes y_pred and y of one shape (N, C, ...) with C > 1, "
                f"but found {described((y_pred, y))}"
            )
        classes = y.shape[1]
        y_pred, y = (each.movedim(1, -1).reshape(-1, classes) for each in (self._decided(y_pred), y))
        return Labels("multilabel", y_pred, y, classes)

    def _decided(self, y_pred: torch.Tensor) -> torch.Tensor:
        return y_pred > self.threshold if y_pred.is_floating_point() else y_pred


def bin_counts(indices: torch.Tensor, bins: int) -> torch.Tensor:
    """How often each of 0, ..., bins - 1 occurs, int64; torch.bincount without its wait for the device."""
    indices = indices.to(torch.int64)
    counts = torch.zeros(bins, dtype=torch.int64, device=indices.device)
    return counts.scatter_add_(0, indices, torch.ones_like(indices))
