"""For each of several labels, how often it was told rightly and wrongly."""

from __future__ import annotations

from typing import Any

import torch

from leyden.engine.values import whole_number
from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import ClassificationMetric
from leyden.metrics.errors import require_samples
from leyden.metrics.outputs import described
from leyden.metrics.states import widened


class MultiLabelConfusionMatrix(ClassificationMetric):
    """A matrix for each label, (num_classes, 2, 2) counts, int64: [[true negatives, false positives], [false negatives,
    true positives]].

    `(y_pred, y)`: both (N, C, ...); a floating y_pred is cut at `threshold`. `normalized` divides each matrix by its
    sum (0 where that is 0). Elements whose y is `ignore_index` are left out. A label that never occurs has a row of
    zeros. NaN among scores, and y other than 0 and 1, are errors; no sample: NotComputableError. Raises ValueError for
    another number of classes. The layout is scikit-learn's `multilabel_confusion_matrix`.

    `state.metrics` gets a tensor on the CPU.
    """

    matrices: torch.Tensor
    samples: int

    def __init__(
        self,
        num_classes: int,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        normalized: bool = False,
        skip_unrolling: bool | None = None,
        *,
        threshold: float = 0.5,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(output_transform, True, device, skip_unrolling, threshold=threshold, ignore_index=ignore_index)
        self.num_classes = whole_number("num_classes of MultiLabelConfusionMatrix", num_classes, 2)
        self.normalized = normalized
        self.add_state("matrices", torch.zeros(self.num_classes, 2, 2, dtype=torch.int64), "sum")
        self.add_state("samples", 0, "sum")

    def update(self, output: Any) -> None:
        _, y_pred, y, classes, kept = self.labels(output)
        if classes != self.num_classes:
            raise ValueError(
                f"this MultiLabelConfusionMatrix has num_classes={self.num_classes}, but found {described(output)}"
            )
        found, true = y_pred.bool(), y.bool()
        cells = [~true & ~found, ~true & found, true & ~found, true & found]
        if kept is not None:
            cells = [cell & kept for cell in cells]
        counts = torch.stack([cell.sum(0) for cell in cells], 1).view(classes, 2, 2)
        self.matrices += counts.to(self.matrices.device)
        self.samples += len(y)

    def labels_seen(self) -> int:
        return self.samples

    def compute(self) -> torch.Tensor:
        require_samples(self, self.samples)
        if not self.normalized:
            return self.matrices.clone()
        matrices = self.sound(widened(self.matrices))
        return matrices / matrices.sum((1, 2), keepdim=True).clamp(min=1)
