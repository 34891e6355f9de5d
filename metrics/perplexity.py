"""How many tokens a language model wavers between."""

from __future__ import annotations

from typing import Any

import torch

from leyden.metrics.base import Device, OutputTransform
from leyden.metrics.classification import ClassificationMetric
from leyden.metrics.errors import require_samples
from leyden.metrics.label_faults import Fault, Found, outside
from leyden.metrics.label_shapes import flat, whole
from leyden.metrics.outputs import described, tensor_pair
from leyden.metrics.sums import add_sum, add_to, sum_of


class Perplexity(ClassificationMetric):
    """exp(mean of -log p(y)) over all tokens of an epoch, not over batches (F. Jelinek et al., 1977).

    `(y_pred, y)`: logits, or log-probabilities, (N, C, ...) and token indices (N, ...), as cross_entropy takes them;
    `class_dim=-1` for logits (N, ..., C), as language models give them. Elements whose y is `ignore_index` are left
    out. Log-probabilities are taken in float32 at least, and summed in float64. A token that never occurs changes
    nothing; NaN among the logits makes the value NaN, a token of probability 0 makes it infinite. No token, or none
    that is not left out: NotComputableError.

    Raises ValueError for other shapes, probabilities, and a y that is none of 0, ..., C - 1; on an accelerator that is
    told at the end of the epoch. Raises TypeError for a y_pred that is not floating, and for a floating y.
    """

    widens = True

    total: torch.Tensor
    tokens: int

    def __init__(
        self,
        output_transform: OutputTransform | None = None,
        device: Device = None,
        ignore_index: int | None = -100,
        skip_unrolling: bool | None = None,
        *,
        class_dim: int = 1,
    ) -> None:
        super().__init__(output_transform, False, device, skip_unrolling, ignore_index=ignore_index)
        if class_dim not in (1, -1):
            raise ValueError(f"class_dim is 1, for logits (N, C, ...), or -1, for (N, ..., C), but got {class_dim!r}")
        self.class_dim = class_dim
        add_sum(self, "total")
        self.add_state("tokens", 0, "sum")

    def update(self, output: Any) -> None:
        y_pred, y = tensor_pair(self, output)
        if not y_pred.is_floating_point() or y.is_floating_point():
            raise TypeError(
                f"Perplexity takes logits, floating numbers, and token indices, whole ones, but found "
                f"{described((y_pred, y))}"
            )
        self._check_shapes(y_pred, y)
        classes = y_pred.shape[self.class_dim]
        logits = y_pred.movedim(self.class_dim, -1)
        y = whole(y)
        kept = None
        if not self._all_count(y, classes - 1):
            kept = self._kept(y)
            self._note(Found(Fault.CLASS, kept & outside(y, 0, classes - 1), y), classes=classes)
        self._refuse_probabilities(logits)
        self._register("multiclass", classes, None if kept is None else flat(kept), output)
        index = (y if kept is None else y.clamp(0, classes - 1)).unsqueeze(-1)
        losses = logits.logsumexp(-1) - logits.gather(-1, index).squeeze(-1)
        if kept is not None:
            losses = torch.where(kept, losses, 0)
        add_to(self, "total", losses.sum(dtype=self.total.dtype))
        self.tokens += y.numel()

    def _refuse_probabilities(self, logits: torch.Tensor) -> None:
        """Of the first rows, which tell as much as all."""
        rows = logits.detach().flatten(0, -2)[:8]
        sum_to_one = (rows >= 0).all() & ((rows.sum(-1) - 1).abs() < 1e-2).all()
        between = ((rows > 0) & (rows < 1)).any()  # more than one-hot rows
        self._note(Found(Fault.SCORE, sum_to_one & between, rows), classes=0)

    def _message(self, fault: Fault, found: str, classes: int | None = None) -> str:
        if fault != Fault.SCORE:
            return super()._message(fault, found, classes)
        return (
            "Perplexity found probabilities in y_pred, rows that sum to 1, but it takes logits or log-probabilities; "
            "give it an output_transform: (output[0].log(), output[1])"
        )

    def _check_shapes(self, y_pred: torch.Tensor, y: torch.Tensor) -> None:
        shape = list(y_pred.shape)
        if y_pred.ndim > 1:
            shape.pop(self.class_dim)
        if y_pred.ndim < 2 or y.ndim == 0 or shape != list(y.shape):
            wanted = "(N, C, ...)" if self.class_dim == 1 else "(N, ..., C)"
            other = -self.class_dim
            fits = y_pred.ndim > 2 and list(y_pred.movedim(other, 0).shape[1:]) == list(y.shape)
            raise ValueError(
                f"Perplexity(class_dim={self.class_dim}) takes logits {wanted} and token indices (N, ...), but found "
                f"{described((y_pred, y))}" + (f"; their shapes fit Perplexity(class_dim={other})" if fits else "")
            )

    def labels_seen(self) -> int:
        return self.tokens

    def compute(self) -> torch.Tensor:
        require_samples(self, self.tokens)
        return self.sound((sum_of(self, "total") / (self.tokens - self.marks[0])).exp())
