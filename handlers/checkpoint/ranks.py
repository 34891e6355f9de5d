"""What each rank has for itself in a checkpoint, from all ranks into one tree.

What is small goes to rank 0, which writes it. What is large (the gradients of an open accumulation window: a model's
size on each rank) is written by each rank itself, beside the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from leyden import distributed as dist
from leyden.handlers.checkpoint.codec import Json, encode
from leyden.handlers.checkpoint.together import gather_or_fail

LIGHT = 256 * 1024
"""Bytes of tensors that a rank hands to rank 0 rather than writing a file of its own."""


class RankParts(NamedTuple):
    """json: of all ranks, under "ranks". tensors: those that this rank has to write. together: every rank has to
    write.
    """

    json: Json
    tensors: dict[str, torch.Tensor]
    together: bool


def gather_ranks(own: Mapping[str, Any], failure: Exception | None = None) -> RankParts:
    """Joins what each rank has for itself; every rank calls it. `failure`: what went wrong on this rank before, which
    is then raised, and told to the others.

    Raises TypeError, with the place, for what is not plain data.
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
    gathered = gather_or_fail((json, handed, light), failure)
    joined: dict[str, Json] = {}
    for each, others, _ in gathered:
        joined.update(each["ranks"])
        tensors = {**others, **tensors}
    together = dist.world_size() > 1 and not all(each_light for _, _, each_light in gathered)
    return RankParts({"ranks": joined}, tensors, together)
