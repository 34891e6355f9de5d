"""Gradients averaged over the ranks after their backward passes: flat, so that a few collectives carry all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from leyden import distributed as dist

MB = 2**20


def average(gradients: Sequence[torch.Tensor], own: Sequence[bool], most_mb: float) -> list[bool]:
    """Makes each gradient, in place, its mean over the ranks that see different data. All of them give gradients of the
    same shapes and kinds, in one order. What is copied flat at once has `most_mb` MB, or is one gradient alone.

    `own`: which of them are this rank's, and not zeros in the place of one that it does not have. Gives which are
    anybody's; a rank that has all of its own knows that without waiting for the device.
    """
    found = list(own)
    for bucket in _buckets(gradients, most_mb * MB):
        parts = [gradients[place].reshape(-1) for place in bucket]
        marks = parts[0].new_ones(len(bucket))  # they travel with the gradients
        for number, place in enumerate(bucket):
            if not own[place]:
                marks[number] = 0
        flat = dist.all_reduce(torch.cat([*parts, marks]), op="mean", over="data")
        *means, marks = flat.split([*(part.numel() for part in parts), len(bucket)])
        for place, mean in zip(bucket, means, strict=True):
            gradients[place].copy_(mean.view(gradients[place].shape))
        if not all(own[place] for place in bucket):
            for place, mark in zip(bucket, marks.tolist(), strict=True):
                found[place] = mark != 0
    return found


def _buckets(gradients: Sequence[torch.Tensor], most: float) -> Iterator[list[int]]:
    """The places of those of one dtype and device together, as long as they fit."""
    filling: dict[object, tuple[list[int], int]] = {}
    for place, gradient in enumerate(gradients):
        kind, size = (gradient.dtype, gradient.device), gradient.numel() * gradient.element_size()
        bucket, filled = filling.get(kind, ([], 0))
        if bucket and filled + size > most:
            yield bucket
            bucket, filled = [], 0
        filling[kind] = ([*bucket, place], filled + size)
    yield from (bucket for bucket, _ in filling.values())
