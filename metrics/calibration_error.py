"""How far a classifier's confidence is from how often it is right."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch

from leyden.engine.values import whole_number
from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import bin_counts
from leyden.metrics.errors import require_samples
from leyden.metrics.scores import ScoreMetric
from leyden.metrics.states import widened
from leyden.metrics.sums import add_sum, add_to, sum_of

Norm: TypeAlias = Literal["l1", "l2", "max"]


class CalibrationError(ScoreMetric):
    """Predictions fall into `n_bins` bins of equal width by their confidence; in each bin the share of right ones is
    compared with the mean confidence. `norm="l1"`: the mean of the differences, weighed by how many predictions a bin
    has, the expected calibration error (C. Guo et al., On Calibration of Modern Neural Networks, 2017). "l2": the root
    of the weighed mean of their squares. "max": the largest.

    `(y_pred, y)`: probabilities (N, C, ...) and class indices (N, ...); the confidence is the highest probability, and
    right is where it is that of y. Or binary, both (N, ...): the confidence is the probability of class 1, and right is
    a y of 1. Each bin holds its lower edge, the last one 1.0 too. Elements whose y is `ignore_index` are left out. A
    class that never occurs changes nothing. NaN is an error. No sample: NotComputableError. Memory is that of the bins.

    Raises ValueError for logits, where probabilities are due, and for what `ClassificationMetric` refuses; TypeError
    for labels in place of probabilities.
    """

    probabilities = True

    counts: torch.Tensor
    """(2, n_bins): predictions, right ones."""
    confidence: torch.Tensor
    """(n_bins,): the sum in each bin."""
    total: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        n_bins: int = 15,
        norm: Norm = "l1",
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(output_transform, False, device, skip_unrolling, ignore_index=ignore_index)
        if norm not in get_args(Norm):
            raise ValueError(f"norm is one of {', '.join(get_args(Norm))}, but got {norm!r}")
        self.n_bins = whole_number("n_bins of CalibrationError", n_bins, 1)
        self.norm = norm
        self.add_state("counts", torch.zeros(2, self.n_bins, dtype=torch.int64), "sum")
        add_sum(self, "confidence", (self.n_bins,))
        self.add_state("total", 0, "sum")

    def update(self, output: Any) -> None:
        kind, scores, y, _, kept = self.scores(output)
        if kind == "multiclass":
            confidence, chosen = scores.max(1)
            right = chosen == y
        else:
            confidence, right = scores, y == 1
        bins = self._bins(confidence)
        if kept is not None:
            bins = torch.where(kept, bins, self.n_bins)  # one bin more, for what does not count
            confidence = torch.where(kept, confidence, 0)
        width = self.n_bins + 1
        counts = bin_counts(torch.cat([bins, torch.where(right, bins, self.n_bins) + width]), 2 * width)
        self.counts += counts.view(2, width)[:, : self.n_bins].to(self.counts.device)
        sums = torch.zeros(width, dtype=self.confidence.dtype, device=bins.device)
        add_to(self, "confidence", sums.scatter_add_(0, bins, confidence.to(sums.dtype))[: self.n_bins])
        self.total += len(y)

    def _bins(self, confidence: torch.Tensor) -> torch.Tensor:
        dtype = torch.promote_types(confidence.dtype, torch.float32)
        edges = torch.linspace(0, 1, self.n_bins + 1, dtype=dtype, device=confidence.device)
        return (torch.bucketize(confidence.to(dtype), edges, right=True) - 1).clamp(0, self.n_bins - 1)

    def labels_seen(self) -> int:
        return self.total

    def compute(self) -> torch.Tensor:
        require_samples(self, self.total)
        count, right = widened(self.counts)
        gaps = (right - sum_of(self, "confidence").to(count.device)).abs() / count.clamp(min=1)
        share = count / count.sum()
        if self.norm == "max":
            return self.sound(gaps.max())
        return self.sound((gaps * share).sum() if self.norm == "l1" else (gaps.square() * share).sum().sqrt())
