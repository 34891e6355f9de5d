"""Scores of classes and the labels that they are held against, where scores are not cut into predictions."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from leyden.metrics.classification import ROUNDING, ClassificationMetric
from leyden.metrics.label_faults import Fault, Found, not_binary, outside, within
from leyden.metrics.label_shapes import by_class, flat, whole
from leyden.metrics.outputs import described


class Scores(NamedTuple):
    """Binary: scores and labels 0 and 1, (M,). Multiclass: scores (M, C), classes (M,). Multilabel: both (M, C)."""

    kind: Literal["binary", "multiclass", "multilabel"]
    scores: torch.Tensor
    y: torch.Tensor
    classes: int
    kept: torch.Tensor | None
    """A mask of the shape of y: True where `ignore_index` leaves nothing out; None where every label counts."""


class ScoreMetric(ClassificationMetric):
    """Base of metrics on scores and labels. The shapes say what `(y_pred, y)` means, as for `ClassificationMetric`;
    y_pred is floating. Of several classes that exclude each other scores are probabilities.
    """

    probabilities = False
    """Scores are probabilities for binary and multilabel data too."""

    def scores(self, output: Any) -> Scores:
        """The scores of a batch. Raises TypeError for labels in place of scores, ValueError for logits in place of
        probabilities, and for what labels raise it.
        """
        y_pred, y = self._pair(output)
        if not y_pred.is_floating_point():
            raise TypeError(
                f"{type(self).__name__} needs scores as y_pred, floating numbers, but found {described((y_pred, y))}: "
                "what the model gives before argmax or a threshold"
            )
        kind: Literal["binary", "multiclass", "multilabel"]
        if self.is_multilabel:
            if y_pred.shape != y.shape or y.ndim < 2 or y.shape[1] < 2:
                raise self._no_several_labels(y_pred, y)
            kind, scores, y = "multilabel", by_class(y_pred), by_class(whole(y))
            classes = y.shape[1]
        elif y_pred.ndim > 1 and y_pred.shape[1] > 1 and y_pred.shape[:1] + y_pred.shape[2:] == y.shape:
            kind, scores, classes = "multiclass", by_class(y_pred), y_pred.shape[1]
            y = self._class_indices(y)
        else:
            if y_pred.ndim == y.ndim + 1 and y_pred.shape[1:2] == (1,):
                y_pred = y_pred.squeeze(1)
            if y_pred.shape != y.shape or y.ndim == 0:
                raise self._differing_shapes(y_pred, y)
            self._refuse_one_hot(y_pred, y)
            kind, scores, y, classes = "binary", flat(y_pred), flat(whole(y)), 2
        kept = self._checked(kind, scores, y, classes)
        self._register(kind, classes, kept, output)
        return Scores(kind, scores, y, classes, kept)

    def _checked(self, kind: str, scores: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor | None:
        """Which labels count; what can't be meant is told."""
        bounded = self.probabilities or kind == "multiclass"
        low, high = (-ROUNDING, 1 + ROUNDING) if bounded else (-torch.inf, torch.inf)
        highest = classes - 1 if kind == "multiclass" else 1
        if self._all_count(y, highest) and within(scores, low, high):
            return None
        kept = self._kept(y)
        of_scores = kept[:, None] if kind == "multiclass" else kept
        faulty = outside(y, 0, highest) if kind == "multiclass" else not_binary(y)
        self._note(
            Found(Fault.NAN, of_scores & scores.isnan(), scores),
            Found(Fault.SCORE, of_scores & outside(scores, low, high), scores),
            Found(Fault.CLASS if kind == "multiclass" else Fault.BINARY_Y, kept & faulty, y),
            classes=classes,
        )
        return kept

    def _message(self, fault: Fault, found: str, classes: int | None = None) -> str:
        if fault != Fault.SCORE:
            return super()._message(fault, found, classes)
        return (
            f"{type(self).__name__} found {found} in y_pred, outside of 0, ..., 1, but it compares probabilities. For "
            "logits give it an output_transform with a softmax over the classes, (output[0].softmax(1), output[1]), or "
            "a sigmoid"
        )
