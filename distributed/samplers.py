"""Which samplers take one rank's share of the data by themselves."""

from __future__ import annotations

_NAMES = (
    ("rank", "num_replicas"),  # torch, timm, Lightning's and Ignite's
    ("rank", "world_size"),
    ("_rank", "_num_replicas"),
    ("_rank", "_world_size"),
    ("process_index", "num_processes"),
)
"""Attributes under which samplers keep their rank, and among how many."""


def place_of_sampler(sampler: object) -> tuple[int, int] | None:
    """(rank, number of ranks) of a sampler, or batch sampler, that deals to that rank; None if it gives everything."""
    for names in _NAMES:
        rank, ranks = (_number(sampler, name) for name in names)
        if rank is not None and ranks is not None:
            return (rank, ranks) if ranks > 1 else None
    return None


def check_place(sampler: object, place: tuple[int, int], here: tuple[int, int]) -> None:
    """Raises ValueError if a sampler deals to another rank than this one, or to another number of them."""
    if place != here:
        raise ValueError(
            f"the {type(sampler).__name__} deals to rank {place[0]} of {place[1]}, but this is rank {here[0]} of "
            f"{here[1]}: make it with rank={here[0]} and {here[1]} replicas on this rank"
        )


def _number(sampler: object, name: str) -> int | None:
    value = getattr(sampler, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
