"""The F score: precision and recall in one number."""

from __future__ import annotations

from numbers import Real

import torch

from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.precision_recall import Average, ByClass, ratio


class FBeta(ByClass):
    """For each class (1 + beta²) · precision · recall / (beta² · precision + recall), which weighs recall beta times as
    much as precision; 0 for a class that neither occurs nor is predicted. (C. J. van Rijsbergen, Information Retrieval,
    1979.)

    Averages, shapes, and what is left out, are those of `Precision`: `average="macro"` is the mean of the classes' F
    scores. NaN among scores is an error. No sample: NotComputableError. Raises ValueError for a beta that is not above
    0.
    """

    def __init__(
        self,
        beta: float,
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
            output_transform,
            average,
            is_multilabel,
            device,
            skip_unrolling,
            threshold=threshold,
            ignore_index=ignore_index,
        )
        weight: object = beta
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise TypeError(f"beta is a number above 0, but is {beta!r}; output_transform comes after it")
        if not 0 < beta < float("inf"):
            raise ValueError(f"beta is how many times as much as precision recall counts, above 0, but is {beta}")
        self.beta = float(beta)

    def by_counts(self, right: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        square = self.beta**2
        return ratio((1 + square) * right, predicted + square * true)


class F1(FBeta):
    """The harmonic mean of precision and recall, by class or averaged: `FBeta` with a beta of 1."""

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
            1,
            output_transform,
            average,
            is_multilabel,
            device,
            skip_unrolling,
            threshold=threshold,
            ignore_index=ignore_index,
        )
