"""How often each class was mistaken for each other class."""

from __future__ import annotations

from typing import Any, Literal

import torch

from leyden.engine.values import as_whole
from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import ClassificationMetric, bin_counts
from leyden.metrics.errors import require_samples
from leyden.metrics.label_faults import Fault, Found, outside
from leyden.metrics.outputs import described
from leyden.metrics.states import widened


class ConfusionMatrix(ClassificationMetric):
    """The matrix (num_classes, num_classes) of counts, int64: rows are true classes, columns predicted ones.

    `(y_pred, y)`: scores (N, C, ...) and class indices (N, ...), or class indices both; with two classes also what is
    binary to `ClassificationMetric`. `average`: "samples" divides by the number of samples N, "recall" each row by its
    sum, "precision" each column by its sum (0 where that is 0). Elements whose y is `ignore_index`, or none of 0, ...,
    num_classes - 1, are left out; of those that are not, a y_pred that is no class is an error.

    `state.metrics` gets a tensor on the CPU.
    """

    matrix: torch.Tensor
    samples: int

    def __init__(
        self,
        num_classes: int,
        average: Literal["samples", "recall", "precision"] | None = None,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        threshold: float = 0.5,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(
            output_transform, False, device, skip_unrolling, threshold=threshold, ignore_index=ignore_index
        )
        if average not in (None, "samples", "recall", "precision"):
            raise ValueError(f'average is None, "samples", "recall" or "precision", but got {average!r}')
        if (whole := as_whole(num_classes)) is None or whole < 2:
            raise ValueError(f"a confusion matrix needs num_classes, at least 2, but got {num_classes!r}")
        self.num_classes = whole
        self.average = average
        self.number_instead = "Accuracy() or MeanIoU(...)"
        self.add_state("matrix", torch.zeros(whole, whole, dtype=torch.int64), "sum")
        self.add_state("samples", 0, "sum")

    def update(self, output: Any) -> None:
        kind, y_pred, y, found, kept = self.labels(output)
        classes = self.num_classes
        if kind == "multiclass" and found != classes:
            raise ValueError(f"this ConfusionMatrix has num_classes={classes}, but found {described(output)}")
        if kind == "binary" and classes > 2 and y_pred.dtype == torch.bool:
            raise ValueError(
                f"ConfusionMatrix(num_classes={classes}) needs scores (N, {classes}, ...) or class indices as y_pred, "
                f"but found {described(output)}"
            )
        y_pred, y = y_pred.long(), y.long()
        unknown = outside(y_pred, 0, classes - 1)
        if kept is not None:
            unknown &= kept
        self._note(Found(Fault.BINARY_Y_PRED, unknown, y_pred), classes=classes)
        counted = ~unknown if kept is None else kept & ~unknown
        cells = torch.where(counted, y * classes + y_pred, classes * classes)
        counts = bin_counts(cells, classes * classes + 1)[:-1].view(classes, classes)
        self.matrix += counts.to(self.matrix.device)
        self.samples += len(output[1])

    def _message(self, fault: Fault, found: str, classes: int | None = None) -> str:
        if fault != Fault.BINARY_Y_PRED or self.num_classes == 2:
            return super()._message(fault, found, classes)
        return (
            f"{type(self).__name__} found {found} in y_pred, none of the classes 0, ..., {self.num_classes - 1}; "
            "num_classes counts those that are predicted too"
        )

    def _kept(self, y: torch.Tensor) -> torch.Tensor:
        return super()._kept(y) & ~outside(y, 0, self.num_classes - 1)

    def _all_count(self, y: torch.Tensor, highest: int | None) -> bool:
        return super()._all_count(y, self.num_classes - 1 if highest is None else highest)

    def compute(self) -> torch.Tensor:
        require_samples(self, self.samples)
        if self.average is None:
            return self.matrix.clone()
        matrix = self.sound(widened(self.matrix))
        if self.average == "samples":
            return matrix / self.samples
        whole = matrix.sum(dim=1, keepdim=True) if self.average == "recall" else matrix.sum(dim=0, keepdim=True)
        return matrix / whole.clamp(min=1)
