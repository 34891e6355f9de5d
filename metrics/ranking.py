"""How scores rank the positives of each class against its negatives: from all samples, or from counts in bins."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch

from leyden.engine.values import as_whole
from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import bin_counts
from leyden.metrics.errors import require_samples
from leyden.metrics.kept_rows import KeepsRows
from leyden.metrics.scores import ScoreMetric, Scores
from leyden.metrics.states import widened

Thresholds: TypeAlias = int | Sequence[float] | torch.Tensor | None

LEFT_OUT = -1
"""The label that is kept in the place of one that does not count."""


class RankingMetric(KeepsRows, ScoreMetric):
    """Base of AUROC and AveragePrecision.

    `(y_pred, y)`: binary, scores and labels 0 and 1, both (N, ...) or y_pred (N, 1, ...); multiclass, probabilities (N,
    C, ...) and class indices (N, ...), each class against the rest; multilabel, if `is_multilabel`, both (N, C, ...).
    Only the order of scores counts, so binary and multilabel scores may be logits. Elements whose y is `ignore_index`
    are left out.

    `average`, for several classes: "macro" (or True), the mean over those that have a value; None or False, a value for
    each class; "weighted", the mean by how often each class occurs.

    `thresholds=None` is exact: all scores are kept, in their dtype, and memory grows with the epoch. A number, say 200,
    counts them between so many thresholds from 0 to 1, evenly spaced; numbers that ascend are the thresholds. Scores
    between two of them are as good as equal, and are then probabilities in every case. Memory is constant: the form for
    XLA, and for epochs of many samples.

    A class without positives, or, for AUROC, without negatives, has no value: NaN, which averages leave out. NaN among
    scores is an error. No sample: NotComputableError. Raises TypeError for labels in place of scores, ValueError for
    logits where probabilities are due, and for what `ClassificationMetric` refuses.
    """

    bins: torch.Tensor
    """(classes, 2, thresholds + 1): negatives and positives by how many thresholds their scores reach."""
    total: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        average: Literal["macro", "weighted"] | bool | None = "macro",
        is_multilabel: bool = False,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        thresholds: Thresholds = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(output_transform, is_multilabel, device, skip_unrolling, ignore_index=ignore_index)
        if average not in (None, False, True, "macro", "weighted"):
            raise ValueError(
                f'the average of {type(self).__name__} is None, False, "macro" (or True) or "weighted", but got '
                f"{average!r}"
            )
        self.average = "macro" if average is True else average
        self.thresholds = None if thresholds is None else _ascending(thresholds)
        self._edges: torch.Tensor | None = None  # the thresholds where the scores are
        self.probabilities = thresholds is not None
        self.add_state("total", 0, "sum")
        if self.thresholds is None:
            self.declare_rows()
        else:
            self._row = None
            self.add_state("bins", torch.zeros(0, dtype=torch.int64), "sum")

    def update(self, output: Any) -> None:
        found = self.scores(output)
        if self.thresholds is not None:
            self._count(found, self.thresholds)
        else:
            self._keep(found)
        self.total += len(found.y)

    def labels_seen(self) -> int:
        return self.total

    def _keep(self, found: Scores) -> None:
        y = found.y.to(torch.int32)
        self.keep([found.scores, y if found.kept is None else torch.where(found.kept, y, LEFT_OUT)])

    def _count(self, found: Scores, thresholds: tuple[float, ...]) -> None:
        positive, kept = _one_vs_rest(found.scores, found.y, found.kept)
        scores = found.scores if found.scores.ndim == 2 else found.scores[:, None]
        scores = scores.float() if scores.itemsize < 4 else scores
        if self._edges is None or (self._edges.device, self._edges.dtype) != (scores.device, scores.dtype):
            self._edges = torch.tensor(thresholds, dtype=torch.float64).to(scores.dtype).to(scores.device)
        width, classes = len(thresholds) + 1, scores.shape[1]
        place = torch.bucketize(scores.contiguous(), self._edges, right=True)
        place = place + width * (positive.long() + 2 * torch.arange(classes, device=place.device))
        if kept is not None:
            place = torch.where(kept, place, 2 * classes * width)  # one bin more, for what does not count
        counts = bin_counts(place.reshape(-1), 2 * classes * width + 1)[:-1].view(classes, 2, width)
        counts = counts.to(self.bins.device)
        self.bins = self.bins + counts if self.bins.numel() else counts

    def compute(self) -> torch.Tensor:
        require_samples(self, self.total)
        if self.thresholds is not None:
            by_class, positives = self.of_bins(self.bins[:, 0], self.bins[:, 1]), self.bins[:, 1].sum(1)
        else:
            (scores, y), _ = self.kept()
            scores = scores.float() if scores.itemsize < 4 else scores
            positive, kept = _one_vs_rest(scores, y, y != LEFT_OUT)
            columns = zip((scores if scores.ndim == 2 else scores[:, None]).unbind(1), positive.unbind(1), strict=True)
            counted = kept.expand_as(positive).unbind(1)
            by_class = torch.stack(
                [self.of_order(*_in_order(*column, count)) for column, count in zip(columns, counted, strict=True)]
            )
            positives = (positive & kept).sum(0)
        return self.sound(self._averaged(by_class, widened(positives)))

    def _averaged(self, by_class: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        if len(by_class) == 1:
            return by_class[0]
        if not self.average:
            return by_class
        there = ~by_class.isnan()
        weights = there * (positives if self.average == "weighted" else torch.ones_like(positives))
        return (torch.where(there, by_class, 0) * weights).sum() / weights.sum()

    @abstractmethod
    def of_bins(self, negatives: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        """The value of each class, from counts (classes, bins) of equal scores, in ascending order."""

    @abstractmethod
    def of_order(
        self, negative: torch.Tensor, positive: torch.Tensor, first: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        """The value of one class, from which samples, in ascending order of their scores, are negative and positive;
        and where the scores that equal each one's begin and end.
        """


def _ascending(thresholds: int | Sequence[float] | torch.Tensor) -> tuple[float, ...]:
    number = as_whole(thresholds)
    if number is not None:
        if number < 2:
            raise ValueError(f"thresholds is a number of at least 2, or the thresholds themselves, but got {number}")
        return tuple(torch.linspace(0, 1, number, dtype=torch.float64).tolist())
    values = torch.as_tensor(thresholds, dtype=torch.float64)
    if (
        values.ndim != 1
        or len(values) == 0
        or bool((values.diff() <= 0).any())
        or not 0 <= values[0] <= values[-1] <= 1
    ):
        raise ValueError(f"thresholds are numbers from 0 to 1 that ascend, but got {thresholds!r}")
    return tuple(values.tolist())


def _one_vs_rest(scores: torch.Tensor, y: torch.Tensor, kept: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
    """Positives (M, classes), and which of them count."""
    if scores.ndim == 1:
        return (y == 1)[:, None], None if kept is None else kept[:, None]
    if y.ndim == 2:
        return y == 1, kept
    return y[:, None] == torch.arange(scores.shape[1], device=y.device), None if kept is None else kept[:, None]


def _in_order(
    scores: torch.Tensor, positive: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    ordered, order = scores.sort()
    positive, kept = positive[order], kept[order]
    first = torch.searchsorted(ordered, ordered)
    last = torch.searchsorted(ordered, ordered, right=True)
    return kept & ~positive, kept & positive, first, last
