"""Gradients averaged over the ranks after their backward passes: flat, so that a few collectives carry all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from leyden import distributed as dist

MB = 2**20


def average(gradients: Sequence[torch.Tensor], most_mb: float) -> None:
    """Makes each gradient, in place, its mean over the ranks that see different data. All of them give gradients of the
    same shapes and kinds, in one order. What is copied flat at once has `most_mb` MB, or is one gradient alone.
    """
    for bucket in _buckets(gradients, most_mb * MB):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        means = dist.all_reduce(flat, op="mean", over="data").split([gradient.numel() for gradient in bucket])
        for gradient, mean in zip(bucket, means, strict=True):
            gradient.copy_(mean.view(gradient.shape))


def _buckets(gradients: Sequence[torch.Tensor], most: float) -> Iterator[list[torch.Tensor]]:
    """Those of one dtype and device together, as long as they fit."""
    filling: dict[object, tuple[list[torch.Tensor], int]] = {}
    for gradient in gradients:
        kind, size = (gradient.dtype, gradient.device), gradient.numel() * gradient.element_size()
        bucket, filled = filling.get(kind, ([], 0))
        if bucket and filled + size > most:
            yield bucket
            bucket, filled = [], 0
        filling[kind] = ([*bucket, gradient], filled + size)
    yield from (bucket for bucket, _ in filling.values())
