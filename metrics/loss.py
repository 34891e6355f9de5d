"""A loss function as a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from leyden.engine.values import move_module, tensors_of, whole_number
from leyden.metrics.base import Device, Metric, OutputTransform
from leyden.metrics.errors import require_samples
from leyden.metrics.outputs import described, device_of

NO_OPTIONS: Mapping[str, Any] = {}


class Loss(Metric):
    """The mean of a loss over the samples of an epoch: each batch's value, weighted by the batch's size.

    `loss_fn(y_pred, y)` gives the mean over the batch, a scalar; it is called in float32 at least. The output is
    (y_pred, y), or (y_pred, y, keyword arguments of loss_fn). `batch_size(y)` says how many samples a batch has; by
    default that is the length of y, or of the tensors in y_pred where y is no tensor. An empty batch changes nothing.

    Raises TypeError for another output, and where the batch's size can't be told; ValueError for a loss that is not a
    scalar, and for one that is a sum over the batch (reduction="sum").
    """

    total: torch.Tensor
    count: int

    def __init__(
        self,
        loss_fn: Callable[..., torch.Tensor],
        output_transform: OutputTransform | None = None,
        batch_size: Callable[[Any], int] | None = None,
        device: Device = None,
        skip_unrolling: bool | None = None,
    ) -> None:
        super().__init__(output_transform, device, skip_unrolling)
        _refuse_sum(loss_fn)
        self.loss_fn = loss_fn
        self.batch_size = batch_size
        self._low: list[str] = []  # the loss function's own tensors of 16 bits
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), "sum")
        self.add_state("count", 0, "sum")

    def update(self, output: Any) -> None:
        if not isinstance(output, tuple | list) or len(output) not in (2, 3):
            raise TypeError(
                f"Loss takes (y_pred, y) or (y_pred, y, keyword arguments), but found {described(output)}; "
                "give it an output_transform that makes such a tuple of the engine's output"
            )
        y_pred, y, *rest = output
        options: Mapping[str, Any] = rest[0] if rest else NO_OPTIONS
        if options and options.get("reduction") == "sum":
            raise ValueError(_summed("the keyword arguments of Loss"))
        if self.batch_size is None:
            size = y.shape[0] if isinstance(y, torch.Tensor) and y.ndim else _batch_size(y_pred, y)
        else:
            size = whole_number("what Loss(batch_size=) gives, a number of samples,", self.batch_size(y), 0)
        if size == 0:
            return
        try:
            loss_fn = _in_full_precision(self.loss_fn, self._low) if self._low else self.loss_fn
            loss = loss_fn(y_pred, y, **options)
        except RuntimeError as error:
            error.add_note(
                "Loss gives its loss_fn float32 where the model's outputs have 16 bits; tensors that it holds itself "
                "(a weight of the classes) have to be float32 too, or stand in it as buffers of a module"
            )
            raise
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise ValueError(
                f"the loss_fn of Loss must give the mean over the batch, a scalar, but gave {described(loss)}; "
                'use reduction="mean"'
            )
        loss = loss.detach()
        if loss.device != self.total.device or loss.ndim:
            loss = loss.reshape(()).to(self.total.device)
        self.total.add_(loss, alpha=size)
        self.count += size

    def _settle(self, output: Any) -> None:
        super()._settle(output)
        device = device_of(output)
        if isinstance(self.loss_fn, nn.Module):
            if device is not None:
                move_module(self.loss_fn, device)
            self._low = [name for name, tensor in _tensors(self.loss_fn) if _is_low(tensor)]

    def compute(self) -> torch.Tensor:
        require_samples(self, self.count)
        return self.total / self.count


def _refuse_sum(loss_fn: object) -> None:
    options = (
        loss_fn.keywords if isinstance(loss_fn, partial) else vars(loss_fn) if hasattr(loss_fn, "__dict__") else {}
    )
    if options.get("reduction") == "sum":
        name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
        raise ValueError(_summed(f"the loss_fn of Loss, {name},"))


def _summed(what: str) -> str:
    return (
        f'{what} has reduction="sum", but Loss weighs the mean over each batch by the batch\'s size; give it '
        'reduction="mean"'
    )


def _batch_size(y_pred: Any, y: Any) -> int:
    """Where y is not a tensor (a mapping, a pair), the length that all tensors of the prediction share."""
    sizes = {len(tensor) for tensor in tensors_of(y_pred) if tensor.ndim > 0}
    if len(sizes) != 1:
        raise TypeError(
            f"Loss can't tell how many samples a batch has: y is {described(y)}, y_pred {described(y_pred)}; say it by "
            "Loss(loss_fn, batch_size=lambda y: ...)"
        )
    return sizes.pop()


def _in_full_precision(loss_fn: Any, low: list[str]) -> Callable[..., torch.Tensor]:
    """The loss function with those of its own tensors that have 16 bits as float32, as its inputs are."""
    widened = {name: tensor.float() for name, tensor in _tensors(loss_fn) if name in low}
    return lambda *args, **options: torch.func.functional_call(loss_fn, widened, args, options)


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())


def _is_low(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.itemsize < 4
