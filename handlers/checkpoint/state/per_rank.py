"""What each rank has for itself in a checkpoint, from all ranks into one tree.

What is small goes to rank 0, which writes it. What is large (the gradients of an open accumulation window: a model's
size on each rank) is written by each rank itself, beside the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from leyden import distributed as dist
from leyden.handlers.checkpoint.files.codec import Json, encode
from leyden.handlers.checkpoint.shared_outcomes import gather_or_fail

LIGHT = 256 * 1024
"""Bytes of tensors that a rank hands to rank 0 rather than writing a file of its own."""


class RankParts(NamedTuple):
    """json: of all ranks, under "ranks". tensors: those that this rank has to write. together: every rank has to
    write.
    """

    json: Json
    tensors: dict[str, torch.Tensor]
    together: bool


def gather_ranks(
    own: Mapping[str, Any], failure: Exception | None = None, models: Mapping[str, Any] | None = None
) -> RankParts:
    """Joins what each rank has for itself; every rank calls it. `failure`: what went wrong on this rank before, which
    is then raised, and told to the others. `models`: what all ranks are to have alike, of which rank 0's is saved.

    Raises TypeError, with the place, for what is not plain data; ValueError, on all ranks, where models differ.
    """
    json: Json = {}
    tensors: dict[str, torch.Tensor] = {}
    rank = str(dist.rank())
    if failure is None:
        try:
            json, tensors = encode({"ranks": {rank: dict(own)}})
        except Exception as error:  # raised once all ranks know of it
            failure = error
    light = dist.world_size() > 1 and sum(tensor.nbytes for tensor in tensors.values()) <= LIGHT
    handed = {name: tensor.cpu() for name, tensor in tensors.items()} if light else {}
    parts = _parts_of(models or {}) if dist.world_size() > 1 else {}
    gathered = gather_or_fail((json, handed, light, _digest(parts)), failure)
    if len({digest for *_, digest in gathered}) > 1:
        raise ValueError(_differing(dist.all_gather_object(parts)))
    joined: dict[str, Json] = {}
    for each, others, *_ in gathered:
        joined.update(each["ranks"])
        tensors = {**others, **tensors}
    together = dist.world_size() > 1 and not all(each_light for _, _, each_light, _ in gathered)
    return RankParts({"ranks": joined}, tensors, together)


def _parts_of(models: Mapping[str, Any]) -> dict[str, str]:
    """Shape (over all ranks) and dtype of each tensor of nested states, by its place."""
    found: dict[str, str] = {}

    def walk(place: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{place}/{key}" if place else str(key), item)
        elif isinstance(value, torch.Tensor) and not is_lazy(value):
            found[place] = f"{list(value.shape)} of {value.dtype}"
        else:
            found[place] = type(value).__name__

    walk("", models)
    return found


def _digest(parts: Mapping[str, str]) -> str:
    return sha256(repr(sorted(parts.items())).encode()).hexdigest()


def _differing(parts: list[dict[str, str]]) -> str:
    first = parts[0]
    for rank, other in enumerate(parts):
        for place in sorted(first.keys() | other.keys()):
            here, there = (each.get(place, "not there") for each in (first, other))
            if here != there:
                return (
                    f"the ranks have different models, of which a checkpoint would hold those of rank 0 alone: "
                    f"{place} is {here} on rank 0, and {there} on rank {rank}. Give all ranks the same models; what a "
                    "rank has for itself is the rank_state_dict() of a handler"
                )
    raise AssertionError("the digests differ, and the parts do not")
