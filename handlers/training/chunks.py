"""Batches cut along time, and what comes of their chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence


def time_of(value: Any, dim: int) -> int:
    """The size at `dim` of the first tensor in nested sequences and mappings that has it; 0 if there is none.

    Raises TypeError for packed sequences.
    """
    if isinstance(value, torch.Tensor):
        return value.size(dim) if value.ndim > dim else 0
    # Sequences before mappings: to ask whether something is a mapping takes several calls.
    if isinstance(value, list | tuple):
        items: Any = value
        if isinstance(value, PackedSequence):
            raise _packed()
    else:
        items = value.values() if isinstance(value, Mapping) else ()
    for item in items:
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
    elif isinstance(value, list | tuple):
        if isinstance(value, PackedSequence):
            raise _packed()
        if value:
            make = _maker(value)
            columns = [cut(item, dim, time, length) for item in value]
            return [make(column) for column in zip(*columns, strict=True)]
    elif isinstance(value, Mapping) and value:
        columns = [cut(item, dim, time, length) for item in value.values()]
        return [dict(zip(value, column, strict=True)) for column in zip(*columns, strict=True)]
    return [value] * -(-time // length)


def detached(value: Any) -> Any:
    """The same without its history, in nested tuples, lists and mappings."""
    kind = value.__class__  # what is asked first is what there is in each chunk
    if kind is torch.Tensor:
        return value.detach()
    if kind is tuple:
        return tuple([detached(item) for item in value])
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, tuple | list):
        return _maker(value)([detached(item) for item in value])
    if isinstance(value, Mapping):
        return {key: detached(item) for key, item in value.items()}
    return value


def mean_output(outputs: list[Any], lengths: list[int]) -> Any:
    """The mean of scalars by length, a tensor where they are; else the outputs themselves, in a list."""
    if not outputs or not all(map(_is_scalar, outputs)):
        return outputs
    if not all(lengths):  # chunks that do not tell
        lengths = [1] * len(outputs)
    total = sum(output * length for output, length in zip(outputs, lengths, strict=True)) / sum(lengths)
    return total.detach() if isinstance(total, torch.Tensor) else total


def _packed() -> TypeError:
    return TypeError(
        "TruncatedBPTT can't cut a PackedSequence, whose time is no dimension; pad the batch, or give split="
    )


def _is_scalar(output: Any) -> bool:
    return output.__class__ is float or (isinstance(output, torch.Tensor) and output.ndim == 0)


def _maker(value: Any) -> Any:
    """What makes a sequence of the same type from its items."""
    kind: Any = type(value)
    return kind._make if hasattr(kind, "_make") else kind  # of a named tuple
