"""Ranks compare what they are about to do together, before they do it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from leyden.distributed.session import session
from leyden.distributed.words import run_store, wait_until

_CALLS = "calls"


def require_alike(lines: Sequence[str], what: str, cure: str, *, calls: Sequence[str] = ()) -> None:
    """Raises ValueError, the same on all ranks, where the lines of one are not those of another, in whatever order.

    Each rank calls it as often as the others, and waits for them. It asks the store in which they met a few things,
    however many ranks there are, and hands on no lines where they are alike. In one process, and where torch has no
    such store, nothing is compared; nor in further threads, whose calls nothing tells apart from those of the first.

    `what`: what the lines say of a rank, "attaches"; `cure`: what to do, a sentence. `calls`: lines that say what it
    calls, which are compared too.

    Raises RuntimeError if another rank has failed, or did not come within the timeout of the default group.
    """
    store = run_store()
    if store is None or not session.common.in_first_thread():
        return
    lines = [f"{what} {each}" for each in lines] + [f"{_CALLS} {each}" for each in calls]
    rank, ranks = session.current().place.rank, session.current().place.world_size
    key = f"leyden/alike/{session.joined}/{session.common.comparisons}"
    digest = sha256("\n".join(sorted(lines)).encode()).hexdigest()
    mine = f"{rank} {digest}"
    try:
        first = store.compare_set(f"{key}/first", "", mine).decode()
    except RuntimeError:  # a store that can't do that, or is gone: nothing else needs it
        return
    if not first.endswith(digest) and store.add(f"{key}/others", 1) == 1:
        store.set(f"{key}/other", json.dumps([rank, sorted(lines)]))
    if store.add(f"{key}/arrived", 1) == ranks:
        store.set(f"{key}/all", str(store.add(f"{key}/others", 0)))
    here = f"; it {_sentence(lines, what) or f'{what} nothing'}. {cure}"
    wait_until(store, [f"{key}/all"], "the others to begin this run", here)
    others = int(store.get(f"{key}/all"))
    told = _exchange(store, key, [rank, sorted(lines)], first == mine) if others else None
    if rank == 0 and session.common.comparisons:  # all have come here, so none looks there any more
        for name in ("first", "others", "arrived", "all"):
            store.delete_key(f"leyden/alike/{session.joined}/{session.common.comparisons - 1}/{name}")
    session.common.begin_words(session.common.comparisons + 1)
    if told is not None:
        raise ValueError(_difference(told, ranks, others, what, cure))


def _sentence(lines: Sequence[str], what: str) -> str:
    """The lines with each verb said once."""
    told = {
        verb: [each.removeprefix(f"{verb} ") for each in sorted(lines) if each.startswith(f"{verb} ")]
        for verb in (what, _CALLS)
    }
    return " and ".join(f"{verb} {', '.join(each)}" for verb, each in told.items() if each)


def _exchange(store: Any, key: str, mine: list[Any], came_first: bool) -> list[Any]:
    """The lines of the rank that came first, and of one that differs, each after its rank; in the order of ranks."""
    if came_first:
        store.set(f"{key}/one", json.dumps(mine))
    keys = [f"{key}/one", f"{key}/other"]
    wait_until(store, keys, "the others to say what they have")
    return sorted(json.loads(store.get(name)) for name in keys)


def _difference(told: list[Any], ranks: int, others: int, what: str, cure: str) -> str:
    (one, of_one), (other, of_other) = told
    counts = Counter(of_one), Counter(of_other)
    alone = [sorted((mine - theirs).elements()) for mine, theirs in (counts, reversed(counts))]
    said = [f"rank {rank} {_sentence(lines, what)}" for rank, lines in zip((one, other), alone, strict=True) if lines]
    lacks = [f"rank {rank} does not" for rank, lines in zip((one, other), alone, strict=True) if not lines]
    ranks_of = f" (of {ranks} ranks, {others} differ from the others)" if ranks > 2 else ""
    return f"the ranks of a run differ: {', and '.join([*said, *lacks])}{ranks_of}. {cure}"
