"""The area under the ROC curve."""

from __future__ import annotations

import torch

from leyden.metrics.ranking import RankingMetric
from leyden.metrics.states import widened


class AUROC(RankingMetric):
    """The area under the receiver operating characteristic: how likely a positive has a higher score than a negative,
    where equal scores count half (J. A. Hanley and B. J. McNeil, 1982). Computed as the Mann-Whitney statistic, in
    whole numbers. See `RankingMetric` for shapes, averages, `thresholds`, and what is left out.
    """

    def of_bins(self, negatives: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        below = negatives.cumsum(1) - negatives
        twice = (positives * (2 * below + negatives)).sum(1)
        return _share(twice, positives.sum(1), negatives.sum(1))

    def of_order(
        self, negative: torch.Tensor, positive: torch.Tensor, first: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        below = torch.cat([torch.zeros_like(first[:1]), negative.cumsum(0)])
        twice = torch.where(positive, below[first] + below[last], 0).sum()
        return _share(twice, positive.sum(), negative.sum())


def _share(twice: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Of all pairs; NaN where there is none."""
    return widened(twice) / (2 * widened(positives) * widened(negatives))
