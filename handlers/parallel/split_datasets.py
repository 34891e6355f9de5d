"""Datasets that are already split among the ranks, as far as they tell."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from leyden import distributed as dist
from leyden.handlers.common.digests import digest_of

UNTOLD = -1
"""The digest of samples about which nothing is known."""


class Shard(NamedTuple):
    """Which share of a stream a rank reads, and among how many; None where the stream finds that out as it is read."""

    rank: int | None
    ranks: int | None


def shard_of_stream(data: Any) -> Shard | None:
    """The share that a stream was split into: by Hugging Face's split_dataset_by_node, by WebDataset's nodesplitter; of
    any other stream None, also where it asks for its rank by itself.
    """
    dataset = data.dataset if isinstance(data, DataLoader) else data
    split: Any = getattr(dataset, "_distributed", None)
    if (ranks := getattr(split, "world_size", None)) is not None:
        return Shard(split.rank, ranks) if ranks > 1 else None
    steps = getattr(dataset, "pipeline", None)
    if isinstance(steps, list) and any(getattr(step, "__name__", "") == "split_by_node" for step in steps):
        return Shard(None, None)
    return None


def hold_other_samples(dataset: Any) -> bool:
    """True if the ranks' data sets with random access tell that they hold different samples. Every rank calls it."""
    least, greatest = least_and_greatest(digest_of_samples(dataset))
    return least != greatest


def least_and_greatest(number: int) -> tuple[int, int]:
    """Of the ranks' numbers."""
    least, negative = dist.all_reduce(torch.tensor([number, -number]), "min").tolist()
    return least, -negative


def digest_of_samples(dataset: Any) -> int:
    """A number that tells data sets with random access apart by which samples they hold, without reading one: by the
    indices of a Subset, the outer rows of a TensorDataset, the fingerprint of Hugging Face. UNTOLD of any other.
    """
    if isinstance(dataset, Subset):
        indices = torch.as_tensor(dataset.indices if not isinstance(dataset.indices, range) else [*dataset.indices])
        return digest_of(indices.cpu().numpy().tobytes(), digest_of_samples(dataset.dataset))
    if isinstance(dataset, TensorDataset):
        return digest_of(*(row.reshape(-1)[:64].tolist() for each in dataset.tensors for row in (each[:1], each[-1:])))
    fingerprint = getattr(dataset, "_fingerprint", None)
    return digest_of(fingerprint) if isinstance(fingerprint, str) else UNTOLD
