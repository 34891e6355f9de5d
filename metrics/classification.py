"""From a classifier's output to predicted labels: binary, multiclass or multilabel."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import NotComputableError
from leyden.metrics.label_faults import PLACES, Fault, Found, can_look_at, looks_one_hot, message, not_binary, outside
from leyden.metrics.outputs import described, tensor_pair

FEWEST_ROWS = 16
"""Of fewer, binary labels may look one-hot by chance: one positive in each row."""


ROUNDING = 0.01
"""How far rounding may push a probability outside 0 to 1: the mean of several, in 16 bits."""


class Labels(NamedTuple):
    """Predicted and true labels: class indices or 0 and 1, of shape (M,); for "multilabel" (M, classes)."""

    kind: Literal["binary", "multiclass", "multilabel"]
    y_pred: torch.Tensor
    y: torch.Tensor
    classes: int
    kept: torch.Tensor
    """A mask of the shape of y: True where `ignore_index` leaves nothing out."""


class ClassificationMetric(Metric):
    """Base of metrics on predicted labels. The shapes say what `(y_pred, y)` means:

    - multiclass: scores (N, C, ...) and class indices (N, ...); the class is the index of the highest score;
    - binary: both (N, ...), or y_pred (N, 1, ...);
    - multilabel, if `is_multilabel`: both (N, C, ...).

    For the last two a floating y_pred is a score: above `threshold` it is 1. The default 0.5 is for probabilities; a
    threshold outside of 0, ..., 1 takes any numbers: 0.0 is for logits. Elements whose y is `ignore_index` (-100, as in
    torch's losses) are left out; None leaves out nothing.

    Raises ValueError for other shapes, one-hot targets among them, where the kind or the number of classes changes
    between batches, and for values that can't be meant: NaN among scores, a y that is no class, scores that are no
    probabilities. On the CPU a batch's values are looked at when it comes. On an accelerator, where a look would wait,
    they are told at the end of the epoch (`verify`); until then the value is NaN.
    """

    later_states = ("marks",)
    widens = False
    binary_only = False
    """Whole numbers of one shape are 0 and 1, not class indices."""

    marks: torch.Tensor

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        is_multilabel: bool = False,
        device: Device = None,
        skip_unrolling: bool | None = None,
        *,
        threshold: float = 0.5,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)
        self.is_multilabel = is_multilabel
        self.threshold = threshold
        self.ignore_index = ignore_index
        self._seen: tuple[str, int] | None = None
        self.add_state("marks", torch.zeros(PLACES, dtype=torch.int64), "sum")

    def reset(self) -> None:
        super().reset()
        self._seen = None

    def labels(self, output: Any) -> Labels:
        """The labels of a batch."""
        y_pred, y = tensor_pair(self, output)
        labels = self._multilabel(y_pred, y) if self.is_multilabel else self._exclusive(y_pred, y)
        if self._seen is not None and self._seen != (labels.kind, labels.classes):
            kind, classes = self._seen
            raise ValueError(
                f"{type(self).__name__} began with {kind} outputs of {classes} classes, but now found "
                f"{labels.kind} ones of {labels.classes}: {described((y_pred, y))}"
            )
        self._seen = (labels.kind, labels.classes)
        if self.ignore_index is not None:
            kept = labels.kept.any(1) if labels.kind == "multilabel" else labels.kept
            self.marks[0] += (~kept).sum().to(self.marks.device)
        return labels

    def verify(self) -> None:
        """Raises ValueError for values that make no sense, NotComputableError if every label was left out."""
        left_out, *faults = self.marks.tolist()
        if any(faults):
            fault = next(fault for fault in Fault if faults[fault - 1])
            raise ValueError(self._message(fault, "values"))
        if left_out and left_out == self.labels_seen():
            raise NotComputableError(
                f"{type(self).__name__} has seen no label but those of ignore_index={self.ignore_index}"
            )

    def labels_seen(self) -> int:
        """How many labels `update` was given, those left out included; for multilabel data, how many samples."""
        return -1

    def sound(self, value: torch.Tensor) -> torch.Tensor:
        """The value; NaN if some labels or scores make no sense, which is raised as an error on the CPU."""
        if can_look_at(self.marks):
            self.verify()
            return value
        return torch.where(self.marks[1:].any(), torch.nan, value)

    def _exclusive(self, y_pred: torch.Tensor, y: torch.Tensor) -> Labels:
        if y_pred.ndim == y.ndim + 1 and y_pred.ndim > 1 and (len(y_pred), *y_pred.shape[2:]) == y.shape:
            classes = y_pred.shape[1]
            if classes > 1:
                return self._multiclass(y_pred, y, classes)
            y_pred = y_pred.squeeze(1)
        if y_pred.shape != y.shape or y.ndim == 0:
            raise ValueError(
                f"{type(self).__name__} takes scores (N, C, ...) and classes (N, ...), or both (N, ...), "
                f"but found {described((y_pred, y))}; give it an output_transform that makes such a pair"
            )
        self._refuse_one_hot(y_pred, y)
        y_pred, y = y_pred.reshape(-1), _whole(y).reshape(-1)
        kept = self._kept(y)
        if y_pred.is_floating_point() or y_pred.dtype == torch.bool or y.is_floating_point() or self.binary_only:
            y_pred = self._decided(y_pred, y, kept)
        else:
            y_pred = _whole(y_pred)
            self._note(Found(Fault.CLASS, kept & outside(y, 0), y), classes=0)
        return Labels("binary", y_pred, y, 2, kept)

    def _multiclass(self, y_pred: torch.Tensor, y: torch.Tensor, classes: int) -> Labels:
        if y.is_floating_point():
            raise TypeError(f"{type(self).__name__} needs class indices as y, whole numbers, but found {described(y)}")
        top, chosen = (each.reshape(-1) for each in y_pred.max(1))  # of NaN and others the maximum is NaN
        y = _whole(y).reshape(-1)
        kept = self._kept(y)
        self._note(
            Found(Fault.NAN, kept & top.isnan(), top),
            Found(Fault.CLASS, kept & outside(y, 0, classes - 1), y),
            classes=classes,
        )
        return Labels("multiclass", chosen, y, classes, kept)

    def _multilabel(self, y_pred: torch.Tensor, y: torch.Tensor) -> Labels:
        if y_pred.shape != y.shape or y.ndim < 2 or y.shape[1] < 2:
            raise ValueError(
                f"{type(self).__name__}(is_multilabel=True) takes y_pred and y of one shape (N, C, ...) with C > 1, "
                f"but found {described((y_pred, y))}"
            )
        classes = y.shape[1]
        y_pred, y = (each.movedim(1, -1).reshape(-1, classes) for each in (y_pred, _whole(y)))
        kept = self._kept(y)
        return Labels("multilabel", self._decided(y_pred, y, kept), y, classes, kept)

    def _decided(self, y_pred: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Scores cut at the threshold, or labels 0 and 1 as they are."""
        labels = Found(Fault.BINARY_Y, kept & not_binary(y), y)
        if not y_pred.is_floating_point():
            y_pred = _whole(y_pred)
            self._note(labels, Found(Fault.BINARY_Y_PRED, kept & not_binary(y_pred), y_pred), classes=2)
            return y_pred
        found = [Found(Fault.NAN, kept & y_pred.isnan(), y_pred), labels]
        if 0 < self.threshold < 1:
            found.insert(1, Found(Fault.SCORE, kept & outside(y_pred, -ROUNDING, 1 + ROUNDING), y_pred))
        self._note(*found, classes=2)
        return y_pred > self.threshold

    def _refuse_one_hot(self, y_pred: torch.Tensor, y: torch.Tensor) -> None:
        if y.ndim < 2 or y.shape[1] < 2:
            return
        by_chance = y.numel() < FEWEST_ROWS * y.shape[1]
        if not y_pred.is_floating_point():
            # Of two classes each element tells what the row tells.
            if y.shape[1] > 2 and not by_chance:
                self._note(Found(Fault.ONE_HOT, looks_one_hot(y) & looks_one_hot(y_pred), y), classes=0)
        elif y.ndim == 2:
            raise ValueError(
                f"{type(self).__name__} found scores and targets of one shape (N, C) with C > 1: "
                f"{described((y_pred, y))}. For one class per sample give class indices, y.argmax(1); for several "
                "labels per sample is_multilabel=True; for binary labels of a sequence flatten both"
            )
        elif not by_chance:
            self._note(Found(Fault.ONE_HOT, looks_one_hot(y), y), classes=0)

    def _kept(self, y: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(y, dtype=torch.bool) if self.ignore_index is None else y != self.ignore_index

    def _note(self, *found: Found, classes: int) -> None:
        """Raises what is found on the CPU; elsewhere the state remembers it."""
        for each in found:
            if not can_look_at(each.where):
                self.marks[each.fault] += each.where.any().to(self.marks.device)
            elif each.where.any():
                raise ValueError(self._message(each.fault, f"{each.example():g}", classes))

    def _message(self, fault: Fault, found: str, classes: int | None = None) -> str:
        if classes is None:
            classes = self._seen[1] if self._seen is not None and self._seen[0] == "multiclass" else 0
        return message(fault, type(self).__name__, found, classes, self.threshold, self.ignore_index)


def _whole(values: torch.Tensor) -> torch.Tensor:
    """Whole numbers as int64, in which -100 is what it says; floating ones as they are."""
    return values if values.is_floating_point() else values.to(torch.int64)


def bin_counts(indices: torch.Tensor, bins: int) -> torch.Tensor:
    """How often each of 0, ..., bins - 1 occurs, int64; torch.bincount without its wait for the device."""
    indices = indices.to(torch.int64)
    counts = torch.zeros(bins, dtype=torch.int64, device=indices.device)
    return counts.scatter_add_(0, indices, torch.ones_like(indices))
