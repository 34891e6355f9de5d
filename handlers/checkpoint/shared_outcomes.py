"""What one rank does for all: its value, or its failure, is every rank's."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TypeVar

from leyden import distributed as dist

T = TypeVar("T")


def on_rank_zero(function: Callable[[], T]) -> T:
    """Calls the function on rank 0; the others wait for it.

    Raises what it raised on rank 0, and RuntimeError with its message on the others: nobody is left waiting.
    """
    if dist.world_size() == 1:
        return function()
    outcome: tuple[T | None, str | None] = (None, None)
    failure: Exception | None = None
    if dist.rank() == 0:
        try:
            outcome = (function(), None)
        except Exception as error:  # raised below, once the others know
            failure = error
            outcome = (None, f"rank 0 failed: {type(error).__name__}: {error}")
    value, message = dist.broadcast_object(outcome)
    if failure is not None:
        raise failure
    if message is not None:
        raise RuntimeError(message)
    return value  # type: ignore[return-value]


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
    told = dist.all_gather_object(None if failure is None else _portable(failure))
    for rank, message in enumerate(told):
        if message is not None:
            if rank == dist.rank() and failure is not None:
                raise failure
            theirs: Exception = pickle.loads(message)
            theirs.add_note(f"raised on rank {rank}")
            raise theirs from failure
    return value  # type: ignore[return-value]


def _portable(error: Exception) -> bytes:
    """An exception that can be raised on other ranks; one of a kind that can't travel as RuntimeError."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # whatever its class does when it is pickled
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


def gather_or_fail(value: T, failure: Exception | None) -> list[T]:
    """The values of all ranks, by rank; if any of them failed, its own failure there and RuntimeError on the others."""
    told = None if failure is None else f"{type(failure).__name__}: {failure}"
    gathered = dist.all_gather_object((value, told))
    if failure is not None:
        raise failure
    for rank, (_, message) in enumerate(gathered):
        if message is not None:
            raise RuntimeError(f"rank {rank} failed: {message}")
    return [each for each, _ in gathered]
