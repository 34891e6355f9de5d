"""The names of `ignite.metrics.confusion_matrix`: functions of a ConfusionMatrix, each a metric derived from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from leyden.metrics import ConfusionMatrix, Derived

__all__ = [
    "ConfusionMatrix",
    "DiceCoefficient",
    "IoU",
    "JaccardIndex",
    "cmAccuracy",
    "cmPrecision",
    "cmRecall",
    "mIoU",
]

ByClass = Callable[[torch.Tensor], torch.Tensor]


def IoU(cm: ConfusionMatrix, ignore_index: int | None = None) -> Derived:
    """Intersection over union by class, without the class `ignore_index`; 0 for a class that never occurs."""
    return _by_class(cm, _iou, ignore_index)


JaccardIndex = IoU


def mIoU(cm: ConfusionMatrix, ignore_index: int | None = None) -> Derived:
    """The mean of `IoU`, in which a class that never occurs counts as 0; leyden's MeanIoU leaves it out."""
    return Derived(torch.mean, IoU(cm, ignore_index))


def DiceCoefficient(cm: ConfusionMatrix, ignore_index: int | None = None) -> Derived:
    """Dice by class, without the class `ignore_index`; 0 for a class that never occurs."""
    return _by_class(cm, _dice, ignore_index)


def cmAccuracy(cm: ConfusionMatrix) -> Derived:
    """The share of samples on the diagonal."""
    return Derived(lambda matrix: _share(matrix.double().trace(), matrix.double().sum()), _checked(cm))


def cmPrecision(cm: ConfusionMatrix, average: bool = True) -> Derived:
    """The share of each column on the diagonal, or the mean of these shares."""
    return Derived(partial(_of_sums, dim=0, average=average), _checked(cm))


def cmRecall(cm: ConfusionMatrix, average: bool = True) -> Derived:
    """The share of each row on the diagonal, or the mean of these shares."""
    return Derived(partial(_of_sums, dim=1, average=average), _checked(cm))


def _checked(cm: ConfusionMatrix) -> ConfusionMatrix:
    if not isinstance(cm, ConfusionMatrix):
        raise TypeError(f"cm must be a ConfusionMatrix, but is {cm!r}")
    return cm


def _by_class(cm: ConfusionMatrix, function: ByClass, ignore_index: int | None) -> Derived:
    if _checked(cm).average not in (None, "samples"):
        raise ValueError(f'the ConfusionMatrix must have average=None or "samples", but has {cm.average!r}')
    if ignore_index is not None and ignore_index not in range(cm.num_classes):
        raise ValueError(f"ignore_index is one of the classes 0, ..., {cm.num_classes - 1}, but is {ignore_index!r}")
    left = [each for each in range(cm.num_classes) if each != ignore_index]
    return Derived(partial(_pick, function, left), cm)


def _pick(function: ByClass, left: list[int], matrix: torch.Tensor) -> torch.Tensor:
    values = function(matrix.double())
    return values[left]


def _iou(matrix: torch.Tensor) -> torch.Tensor:
    right = matrix.diagonal()
    return _share(right, matrix.sum(1) + matrix.sum(0) - right)


def _dice(matrix: torch.Tensor) -> torch.Tensor:
    return _share(2 * matrix.diagonal(), matrix.sum(1) + matrix.sum(0))


def _of_sums(matrix: torch.Tensor, dim: int, average: bool) -> torch.Tensor:
    shares = _share(matrix.double().diagonal(), matrix.double().sum(dim))
    return shares.mean() if average else shares


def _share(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return part / (whole + 1e-15)
