"""Work for one rank alone, or for one rank before the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from leyden.distributed.collectives import barrier
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
