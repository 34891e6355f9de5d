"""Batches cut along time, and what comes of their chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested mappings and sequences, in their order. Raises TypeError for packed sequences."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, PackedSequence):
        raise _packed()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def cut(value: Any, dim: int, time: int, length: int) -> list[Any]:
    """The chunks of a batch: tensors of size `time` at `dim` in pieces of `length`, all else whole in each.

    Raises TypeError for packed sequences.
    """
    number = -(-time // length)
    if isinstance(value, torch.Tensor):
        if value.ndim > dim and value.size(dim) == time:
            return list(value.split(length, dim))
    elif isinstance(value, PackedSequence):
        raise _packed()
    elif isinstance(value, Mapping) and value:
        columns = zip(*(cut(item, dim, time, length) for item in value.values()), strict=True)
        return [dict(zip(value, column, strict=True)) for column in columns]
    elif isinstance(value, list | tuple) and value:
        make = _maker(value)
        return [make(column) for column in zip(*(cut(item, dim, time, length) for item in value), strict=True)]
    return [value] * number


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
