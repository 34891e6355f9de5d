"""Ignite's ROC_AUC and AveragePrecision: leyden's own, computed in torch, with Ignite's arguments."""

from __future__ import annotations

from typing import Any

import torch

from leyden import metrics
from leyden.metrics import OutputTransform, RankingMetric


class _FindsLabels(RankingMetric):
    """Ignite's arguments; several labels are found by the shape of y."""

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        check_compute_fn: bool = False,
        device: str | torch.device | None = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(output_transform, device=device, skip_unrolling=skip_unrolling)

    def update(self, output: Any) -> None:
        self.is_multilabel = _several(output)
        super().update(output)


class AveragePrecision(_FindsLabels, metrics.AveragePrecision):
    """leyden's, which finds several labels by the shape of y, (N, C). There is no `compute_fn` to check."""


class ROC_AUC(_FindsLabels, metrics.AUROC):
    """leyden's AUROC, which finds several labels by the shape of y, (N, C). There is no `compute_fn` to check."""


def _several(output: Any) -> bool:
    """A y of several labels for each sample."""
    y = output[1] if isinstance(output, tuple | list) and len(output) == 2 else None
    return isinstance(y, torch.Tensor) and y.ndim == 2 and y.shape[1] > 1
