"""The area under the precision-recall curve, as a sum."""

from __future__ import annotations

import torch

from leyden.metrics.ranking import RankingMetric
from leyden.metrics.states import widened


class AveragePrecision(RankingMetric):
    """The sum of precisions at each threshold, weighed by the recall that is gained there: the mean, over the
    positives, of the precision among all with a score at least as high (scikit-learn's `average_precision_score`; no
    trapezoids, which would be too optimistic). See `RankingMetric` for shapes, averages, `thresholds`, and what is left
    out.
    """

    def of_bins(self, negatives: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        right = positives.flip(1).cumsum(1).flip(1)
        wrong = negatives.flip(1).cumsum(1).flip(1)
        precision = widened(right) / widened((right + wrong).clamp(min=1))
        return (precision * positives).sum(1) / widened(positives.sum(1))

    def of_order(
        self, negative: torch.Tensor, positive: torch.Tensor, first: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        # What stands before the first of the equal ones has a lower score.
        right = positive.sum() - (positive.cumsum(0) - positive.long())[first]
        wrong = negative.sum() - (negative.cumsum(0) - negative.long())[first]
        precision = widened(right) / widened((right + wrong).clamp(min=1))
        return torch.where(positive, precision, 0).sum() / widened(positive.sum())
