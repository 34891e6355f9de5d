"""Work for one rank alone, for all of them, or before the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from leyden.distributed.collectives import barrier, broadcast_object
from leyden.distributed.mesh import backend_over
from leyden.distributed.session import local_rank as this_local_rank
from leyden.distributed.session import local_world_size, world_size
from leyden.distributed.session import rank as this_rank

P = ParamSpec("P")
R = TypeVar("R")


def one_rank_only(rank: int = 0, with_barrier: bool = False) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Decorate a function to run on one rank; on the others it does nothing and returns None.

    Args:
        rank: the rank that runs it.
        with_barrier: all ranks wait for each other after each call.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        @wraps(function)
        def on_one_rank(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return function(*args, **kwargs) if this_rank() == rank else None
            finally:
                # An error must not leave the other ranks waiting.
                if with_barrier:
                    barrier()

        return on_one_rank

    return decorate


def on_rank_zero(function: Callable[[], R], *, over: str | None = None, failed: str = "rank 0 failed") -> R:
    """Calls the function on rank 0, and gives all ranks what it gave there; the others wait for it.

    Args:
        function: gives what can be pickled.
        over: a dimension of the run's mesh, along which rank 0 then counts; see `all_reduce`.
        failed: how the message begins on the other ranks if it fails.

    Raises:
        Exception: what the function raised, on rank 0; a RuntimeError with its message on the others, so that nobody is
            left waiting.
    """
    backend = backend_over(over)
    if backend.size == 1:
        return function()
    outcome: tuple[R | None, str | None] = (None, None)
    failure: Exception | None = None
    if backend.index == 0:
        try:
            outcome = (function(), None)
        except Exception as error:  # raised below, once the others know
            failure = error
            outcome = (None, f"{failed}: {type(error).__name__}: {error}")
    value, message = broadcast_object(outcome, over=over)
    if failure is not None:
        raise failure
    if message is not None:
        raise RuntimeError(message)
    return cast(R, value)


@contextmanager
def one_rank_first(rank: int = 0, local: bool = False) -> Iterator[None]:
    """One rank goes through the block first (to download a data set, say), then all others.

    Args:
        rank: the rank that goes first.
        local: count ranks on each node, so that one process of each node goes first.

    Raises:
        ValueError: there is no such rank.
    """
    here, count = (this_local_rank(), local_world_size()) if local else (this_rank(), world_size())
    if not 0 <= rank < count:
        raise ValueError(
            f"there is no {'local ' if local else ''}rank {rank} to go first: ranks go from 0 to {count - 1}"
        )
    if here != rank:
        barrier()
    try:
        yield
    finally:
        # An error in the first rank must not leave the others waiting.
        if here == rank:
            barrier()
