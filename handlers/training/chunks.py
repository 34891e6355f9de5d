"""Cuts batches along time, and joins the outputs of their chunks."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from leyden.engine.values import items_of, with_items


def time_of(value: Any, dim: int) -> int:
    """The size at `dim` of the first tensor in nested containers that has it; 0 if there is none.

    Raises TypeError for packed sequences.
    """
    if isinstance(value, torch.Tensor):
        return value.size(dim) if value.ndim > dim else 0
    _refuse_packed(value)
    for item in items_of(value) or ():
        if time := time_of(item, dim):
            return time
    return 0


def cut(value: Any, dim: int, time: int, length: int) -> list[Any]:
    """The chunks of a batch: tensors of size `time` at `dim` in pieces of `length`, all else whole in each.

    Raises TypeError for packed sequences.
    """
    if isinstance(value, torch.Tensor):
        if value.ndim > dim and value.size(dim) == time:
            return list(value.split(length, dim))
    else:
        _refuse_packed(value)
        if items := items_of(value):
            columns = [cut(item, dim, time, length) for item in items]
            return [with_items(value, column) for column in zip(*columns, strict=True)]
    return [value] * -(-time // length)


def mean_output(outputs: list[Any], lengths: list[int]) -> Any:
    """The mean of scalars by length, a tensor where they are; else the outputs themselves, in a list."""
    if not outputs or not all(map(_is_scalar, outputs)):
        return outputs
    if not all(lengths):  # chunks that do not tell
        lengths = [1] * len(outputs)
    total = sum(output * length for output, length in zip(outputs, lengths, strict=True)) / sum(lengths)
    return total.detach() if isinstance(total, torch.Tensor) else total


def _refuse_packed(value: Any) -> None:
    if isinstance(value, PackedSequence):
        raise TypeError(
            "TruncatedBPTT can't cut a PackedSequence, whose time is no dimension; pad the batch, or give split="
        )


def _is_scalar(output: Any) -> bool:
    return output.__class__ is float or (isinstance(output, torch.Tensor) and output.ndim == 0)
