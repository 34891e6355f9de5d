"""From a classifier's output to predicted labels: binary, multiclass or multilabel."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch

from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import NotComputableError
from leyden.metrics.label_faults import (
    PLACES,
    Fault,
    Found,
    can_look_at,
    looks_one_hot,
    message,
    not_binary,
    outside,
    within,
)
from leyden.metrics.label_shapes import by_class, flat, whole
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
    kept: torch.Tensor | None
    """A mask of the shape of y: True where `ignore_index` leaves nothing out; None where it is known that every label
    counts.
    """


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
        y_pred, y = self._pair(output)
        labels = self._multilabel(y_pred, y) if self.is_multilabel else self._exclusive(y_pred, y)
        if labels.kept is not None or self._seen != (labels.kind, labels.classes):
            self._register(labels.kind, labels.classes, labels.kept, output)
        return labels

    def _pick(self, output: Any) -> Any:
        # What is compared and counted has no graph: no tensor is made to cut it off, but where scores are added up.
        return output if output.__class__ is tuple and not self.widens else super()._pick(output)

    def _pair(self, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(y_pred, y), without a graph."""
        y_pred, y = tensor_pair(self, output)
        return (y_pred.detach(), y) if y_pred.requires_grad else (y_pred, y)

    def _register(self, kind: str, classes: int, kept: torch.Tensor | None, output: Any) -> None:
        """Sees that all batches are of one kind, and counts what is left out."""
        if self._seen != (kind, classes):
            if self._seen is not None:
                raise ValueError(
                    f"{type(self).__name__} began with {self._seen[0]} outputs of {self._seen[1]} classes, but now "
                    f"found {kind} ones of {classes}: {described(output)}"
                )
            self._seen = (kind, classes)
        if kept is not None and self.ignore_index is not None:
            left_out = ~(kept.any(1) if kept.ndim > 1 else kept)
            self.marks[0] += left_out.sum().to(self.marks.device)

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
        shape = y_pred.shape
        if y_pred.ndim == y.ndim + 1 and y_pred.ndim > 1 and shape[:1] + shape[2:] == y.shape:
            classes = shape[1]
            if classes > 1:
                return self._multiclass(y_pred, y, classes)
            y_pred = y_pred.squeeze(1)
        if y_pred.shape != y.shape or y.ndim == 0:
            raise self._differing_shapes(y_pred, y)
        self._refuse_one_hot(y_pred, y)
        y_pred, y = flat(y_pred), flat(whole(y))
        if y_pred.is_floating_point() or y_pred.dtype == torch.bool or y.is_floating_point() or self.binary_only:
            return Labels("binary", *self._decided(y_pred, y))
        y_pred = whole(y_pred)
        kept = None
        if not self._all_count(y, None):
            kept = self._kept(y)
            self._note(Found(Fault.CLASS, kept & outside(y, 0), y), classes=0)
        return Labels("binary", y_pred, y, 2, kept)

    def _multiclass(self, y_pred: torch.Tensor, y: torch.Tensor, classes: int) -> Labels:
        if y.dtype != torch.int64 or y.ndim > 1:
            y = self._class_indices(y)
        kept = None
        if self._all_count(y, classes - 1) and (total := y_pred.sum().item()) == total:  # NaN differs from itself
            chosen = y_pred.argmax(1)
            if chosen.ndim > 1:
                chosen = flat(chosen)
        else:
            top, chosen = y_pred.max(1)  # of NaN and others the maximum is NaN
            kept, top, chosen = self._kept(y), flat(top), flat(chosen)
            self._note(
                Found(Fault.NAN, kept & top.isnan(), top),
                Found(Fault.CLASS, kept & outside(y, 0, classes - 1), y),
                classes=classes,
            )
        return Labels("multiclass", chosen, y, classes, kept)

    def _class_indices(self, y: torch.Tensor) -> torch.Tensor:
        if y.is_floating_point():
            raise TypeError(f"{type(self).__name__} needs class indices as y, whole numbers, but found {described(y)}")
        return flat(whole(y))

    def _differing_shapes(self, y_pred: torch.Tensor, y: torch.Tensor) -> ValueError:
        return ValueError(
            f"{type(self).__name__} takes scores (N, C, ...) and classes (N, ...), or both (N, ...), "
            f"but found {described((y_pred, y))}; give it an output_transform that makes such a pair"
        )

    def _no_several_labels(self, y_pred: torch.Tensor, y: torch.Tensor) -> ValueError:
        return ValueError(
            f"{type(self).__name__}(is_multilabel=True) takes y_pred and y of one shape (N, C, ...) with C > 1, "
            f"but found {described((y_pred, y))}"
        )

    def _multilabel(self, y_pred: torch.Tensor, y: torch.Tensor) -> Labels:
        if y_pred.shape != y.shape or y.ndim < 2 or y.shape[1] < 2:
            raise self._no_several_labels(y_pred, y)
        if y.ndim > 2:
            y_pred, y = by_class(y_pred), by_class(y)
        y_pred, y, _, kept = self._decided(y_pred, whole(y))
        return Labels("multilabel", y_pred, y, y.shape[1], kept)

    def _decided(
        self, y_pred: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor | None]:
        """Labels of two classes, from scores cut at the threshold or from what is 0 and 1; and which of them count."""
        cut = y_pred.is_floating_point()
        y_pred = y_pred if cut else whole(y_pred)
        low, high = (-ROUNDING, 1 + ROUNDING) if 0 < self.threshold < 1 else (-math.inf, math.inf)
        kept = None
        if not (self._all_count(y, 1) and within(y_pred, *((low, high) if cut else (0, 1)))):
            kept = self._kept(y)
            labels = Found(Fault.BINARY_Y, kept & not_binary(y), y)
            if cut:
                nan = Found(Fault.NAN, kept & y_pred.isnan(), y_pred)
                self._note(nan, Found(Fault.SCORE, kept & outside(y_pred, low, high), y_pred), labels, classes=2)
            else:
                self._note(labels, Found(Fault.BINARY_Y_PRED, kept & not_binary(y_pred), y_pred), classes=2)
        return y_pred > self.threshold if cut else y_pred, y, 2, kept

    def _all_count(self, y: torch.Tensor, highest: int | None) -> bool:
        """Whether it is known, without waiting for a device, that every y is one of 0, ..., highest, and none of them
        is left out: masks are then not needed.
        """
        if not can_look_at(y) or y.is_floating_point():
            return False
        high = math.inf if highest is None else highest
        if self.ignore_index is not None and 0 <= self.ignore_index <= high:
            return False
        if y.numel() == 0:
            return True
        least, greatest = y.aminmax()
        return bool(least.item() >= 0 and greatest.item() <= high)

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


def bin_counts(indices: torch.Tensor, bins: int) -> torch.Tensor:
    """How often each of 0, ..., bins - 1 occurs, int64; torch.bincount without its wait for the device."""
    indices = indices.to(torch.int64)
    counts = torch.zeros(bins, dtype=torch.int64, device=indices.device)
    return counts.scatter_add_(0, indices, torch.ones_like(indices))
