"""How what each rank does for itself ended is the same on all of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TypeVar

import torch

from leyden import distributed as dist

T = TypeVar("T")


def on_every_rank(function: Callable[[], T]) -> T:
    """Calls the function on each rank. Where it fails on some, all raise what the first of them raised: nobody is left
    waiting. The function itself waits for no other rank.
    """
    if dist.world_size() == 1:
        return function()
    failure: Exception | None = None
    value: T | None = None
    try:
        value = function()
    except Exception as error:  # raised below, once the others know
        failure = error
    agree(failure)
    return value  # type: ignore[return-value]


def agree(failure: Exception | None) -> None:
    """Raises, where something failed on some ranks, what failed on the first of them, on all."""
    first = _lowest(failure)[0]
    if first == dist.world_size():
        return
    message = dist.broadcast_object(b"" if failure is None else _portable(failure), first)
    if first == dist.rank() and failure is not None:
        raise failure
    theirs: Exception = pickle.loads(message)
    theirs.add_note(f"raised on rank {first}")
    raise theirs from failure


def all_alike(digest: int, failure: Exception | None) -> bool:
    """Whether the digest, of up to 56 bits, is one and the same on all ranks; where something failed on some, its own
    failure is raised there, and RuntimeError on the others.
    """
    first, least, negated = _lowest(failure, digest)
    if first < dist.world_size():
        told = dist.broadcast_object(failure and f"{type(failure).__name__}: {failure}", first)
        raise failure or RuntimeError(f"rank {first} failed: {told}")
    return least == -negated


def _lowest(failure: Exception | None, digest: int = 0) -> list[int]:
    """The first rank that failed, or how many there are, and the least and the negated greatest of the digests: all in
    one small reduction.
    """
    mine = dist.world_size() if failure is None else dist.rank()
    lowest: list[int] = dist.all_reduce(torch.tensor([mine, digest, -digest]), "min").tolist()
    return lowest


def _portable(error: Exception) -> bytes:
    """An exception that can be raised on other ranks; one of a kind that can't travel as RuntimeError."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # whatever its class does when it is pickled
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content
