"""How well predicted regions cover the true ones, from a confusion matrix: IoU, its mean, Dice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.confusion_matrix import ConfusionMatrix
from leyden.metrics.derived import Derived
from leyden.metrics.precision_recall import ratio
from leyden.metrics.states import widened

DEFAULTS: Mapping[str, Any] = {
    "output_transform": None,
    "device": None,
    "skip_unrolling": None,
    "threshold": 0.5,
    "ignore_index": -100,
}
"""Of the arguments that are the matrix's."""


class Overlap(Derived):
    """Base of IoU and Dice: a value for each class, of a ConfusionMatrix.

    `num_classes` is a number, or a ConfusionMatrix, whose counts are then shared: several metrics of one matrix update
    and reduce it once. The other arguments are the matrix's, and given with a number alone: `(y_pred, y)` are scores
    (N, C, ...) and classes (N, ...), or classes both; each pixel counts; elements whose y is `ignore_index`, or none of
    the classes, are left out.

    `average=None`: a value for each class, 0 for one that neither occurs nor is predicted. "macro": the mean over the
    classes that occur or are predicted, without that of `ignore_index`; NaN where there is none. NaN among scores is an
    error. No sample: NotComputableError. Raises TypeError for num_classes that are neither, ValueError for a matrix
    that is normalised by rows or columns.
    """

    def __init__(
        self,
        num_classes: int | ConfusionMatrix,
        average: Literal["macro"] | None = None,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        threshold: float = 0.5,
        ignore_index: int | None = -100,
    ) -> None:
        if average not in (None, "macro"):
            raise ValueError(f'the average of {type(self).__name__} is None or "macro", but got {average!r}')
        super().__init__(
            self._of_matrix,
            self._matrix(
                num_classes,
                {
                    "output_transform": output_transform,
                    "device": device,
                    "skip_unrolling": skip_unrolling,
                    "threshold": threshold,
                    "ignore_index": ignore_index,
                },
            ),
        )
        self.average = average
        self.number_instead = "" if average else f'{type(self).__name__}(..., average="macro")'

    def _matrix(self, num_classes: int | Metric, options: Mapping[str, Any]) -> ConfusionMatrix:
        who = type(self).__name__
        if not isinstance(num_classes, Metric):
            return ConfusionMatrix(num_classes, **options)
        if not isinstance(num_classes, ConfusionMatrix):
            raise TypeError(f"{who} takes a number of classes or a ConfusionMatrix, but got {num_classes!r}")
        if given := [name for name, value in options.items() if value != DEFAULTS[name]]:
            raise ValueError(f"{who} of a ConfusionMatrix takes no {given[0]}; give it to the ConfusionMatrix")
        if num_classes.average not in (None, "samples"):
            raise ValueError(
                f'{who} needs the counts of a ConfusionMatrix, but this one has average="{num_classes.average}"; make '
                "one without average="
            )
        return num_classes

    def _of_matrix(self, matrix: torch.Tensor) -> torch.Tensor:
        matrix = widened(matrix)
        right, predicted, true = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
        by_class = self.by_counts(right, predicted, true)
        if self.average is None:
            return by_class
        there = (predicted + true) > 0
        (source,) = self.sources()
        left_out = getattr(source, "ignore_index", None)
        if left_out is not None and 0 <= left_out < len(there):
            there = there & (torch.arange(len(there), device=there.device) != left_out)
        return torch.where(there, by_class, 0).sum() / there.sum()

    @abstractmethod
    def by_counts(self, right: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """For each class, from how many elements are rightly of it, predicted as such, and truly such."""


class IoU(Overlap):
    """Intersection over union, for each class (P. Jaccard, 1901): elements that are and are predicted to be of it,
    divided by those that are or are predicted. `IoU(num_classes)` or `IoU(confusion_matrix)`; see `Overlap`.
    """

    def by_counts(self, right: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return ratio(right, predicted + true - right)


class MeanIoU(IoU):
    """The mean of `IoU` over the classes that occur or are predicted, without that of `ignore_index`: mIoU."""

    def __init__(
        self,
        num_classes: int | ConfusionMatrix,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        threshold: float = 0.5,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(
            num_classes,
            "macro",
            output_transform,
            device,
            skip_unrolling,
            threshold=threshold,
            ignore_index=ignore_index,
        )


class Dice(Overlap):
    """The Dice coefficient, for each class (L. R. Dice, 1945): twice the elements that are and are predicted to be of
    it, divided by those that are plus those that are predicted. The same as its F1; see `Overlap`.
    """

    def by_counts(self, right: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return ratio(2 * right, predicted + true)
