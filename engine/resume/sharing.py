"""How another number of ranks shares out what those that were saved had for themselves, and what each rank has to read
for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leyden import distributed as dist

if TYPE_CHECKING:
    from leyden.engine.engine import Engine

ALL, DEALT, FIRST = "all", "dealt", "first"
"""Each rank looks at what all had; rank r of R takes that of the ranks r, r + R, r + 2R, ...; rank 0's is enough."""
_GRADIENTS = "gradients/"


def ways_of_sharing(engine: Engine[Any, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """What there is in `engine.rank_state_dict()` for other ranks to take over, and in which of the three ways. Empty
    where nothing of this rank's own is open.
    """
    handlers = engine.labelled()
    ways = {f"updates/{name}": DEALT for name in own["updates"]}
    ways |= {f"{_GRADIENTS}{name}": DEALT for name, window in own["updates"].items() if window["gradients"]}
    ways |= {f"handlers/{name}": getattr(handlers[name], "shared_out", ALL) for name in own["handlers"]}
    return ways | ({"suspended": DEALT} if "suspended" in own else {})


def is_dealt_to_this_rank(share: int) -> bool:
    """Whether this rank is the one that takes over that share of the data."""
    return share % dist.data_size() == dist.data_rank()


def shares_needed(ways: Mapping[str, str] | None, shares: int, *, sharded: bool) -> set[int]:
    """Which of so many saved shares of the data this rank has to read. `ways`: those of all ranks, None if unknown.
    `sharded`: it has parameters in shards, for each of which it needs the gradients that all ranks had.

    The first is always among them, which tells what all ranks had taken of their common order.
    """
    found = {ALL} if ways is None else set(ways.values())
    if found - {DEALT, FIRST} or (sharded and any(name.startswith(_GRADIENTS) for name in ways or ())):
        return set(range(shares))
    return {0, *(share for share in range(shares) if DEALT in found and is_dealt_to_this_rank(share))}
