"""Ignite's RunningAverage, which goes on from epoch to epoch unless it is told not to; leyden's own begins anew."""

from __future__ import annotations

import torch

from leyden import metrics
from leyden.metrics import OutputTransform


class RunningAverage(metrics.RunningAverage):
    """leyden's, with `epoch_bound=False` where nothing is said."""

    def __init__(
        self,
        src: metrics.Metric | None = None,
        alpha: float = 0.98,
        output_transform: OutputTransform | None = None,
        epoch_bound: bool | None = None,
        device: str | torch.device | None = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(src, alpha, output_transform, epoch_bound is True, device, skip_unrolling)
