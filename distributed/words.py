"""Words that ranks leave each other in the store in which they met, beside the work and without a collective."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from leyden.distributed.backends import TorchBackend
from leyden.distributed.compat import default_store
from leyden.distributed.session import session

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.5  # seconds between two looks into the store
_SECONDS_BETWEEN_LOOKS_FOR_FAILURES = 1.0
_LONGEST_WORD = 2000
_SECONDS_TO_TAKE_BACK = 2.0


def run_store() -> Any:
    """The store of the ranks that are joined now; None in one process, and where torch has none."""
    backend = session.current()
    if backend.place.world_size == 1 or not isinstance(backend, TorchBackend):
        return None
    try:
        return default_store()
    except ValueError:
        return None


def tell_failure(error: BaseException) -> None:
    """Leaves word that this rank failed. Where another did so before, its word becomes a note on the error: that of a
    rank which waited in vain says nothing of what was amiss.
    """
    store = run_store()
    if store is None:
        return
    rank = session.current().place.rank
    word = f"{type(error).__name__}: {error}"[:_LONGEST_WORD]
    mine = f"{rank} {word}"
    session.common.failed = True
    with contextlib.suppress(RuntimeError):  # the store may have gone with the rank that kept it
        first = store.compare_set(_key("failed"), "", mine).decode()
        if first != mine and first.partition(" ")[2] not in word:
            error.add_note(f"rank {first.replace(' ', ' failed first: ', 1)}")
        if (note := _uneven_abandons(store, error)) is not None:
            error.add_note(note)


def tell_abandoned() -> None:
    """Leaves word that this rank gave up a batch, whose gradients the others may wait to exchange."""
    store = run_store()
    if store is not None:
        with contextlib.suppress(RuntimeError):
            store.add(_key("abandoned"), 1)
            session.common.abandoned += 1
            session.common.abandoned_for = id(sys.exception())


def _uneven_abandons(store: Any, error: BaseException) -> str | None:
    """What is to be said where the ranks have not given up equally many batches in this run; one that ends it with its
    error does not count.
    """
    if session.common.abandoned_for == id(error):
        session.common.abandoned -= 1
        session.common.abandoned_for = 0
        store.add(_key("abandoned"), -1)
    if not store.check([_key("abandoned")]):
        return None
    own, ranks = session.common.abandoned, session.current().place.world_size
    began = time.monotonic()
    # Ranks that fail together, by a timeout say, are a moment apart in taking theirs back.
    while (others := store.add(_key("abandoned"), 0) - own) != own * (ranks - 1):
        if time.monotonic() - began > _SECONDS_TO_TAKE_BACK:
            break
        time.sleep(_LONGEST_PAUSE)
    else:
        return None
    return (
        f"update.abandon() gave up {own} batches of this run on this rank, and {others} on the others together: all "
        "ranks have to give up the same, or they exchange gradients of different batches and wait for each other in "
        "vain"
    )


def _failure_of_another(store: Any) -> str | None:
    """What a rank that failed has left word of, unless this one failed, too: all may have survived that."""
    if session.common.failed or not store.check([_key("failed")]):
        return None
    rank, _, error = store.get(_key("failed")).decode().partition(" ")
    return f"rank {rank} has failed: {error}"


def wait_until(store: Any, keys: list[str], what: str, cure: str = "") -> None:
    """Waits for other ranks to leave their word under these keys.

    Raises RuntimeError if one of them has failed, or if they did not come within the timeout of the default group.
    """
    backend = session.current()
    timeout = backend.timeout if isinstance(backend, TorchBackend) else None
    began = looked = time.monotonic()
    pause = _FIRST_PAUSE
    while not store.check(keys):
        now = time.monotonic()
        if now - looked > _SECONDS_BETWEEN_LOOKS_FOR_FAILURES:
            looked = now
            if (failure := _failure_of_another(store)) is not None:
                raise RuntimeError(f"rank {backend.place.rank} waited for {what}, but {failure}")
        if timeout is not None and now - began > timeout.total_seconds():
            raise RuntimeError(f"rank {backend.place.rank} waited {timeout.total_seconds():.0f} s for {what}{cure}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _key(name: str) -> str:
    return f"leyden/words/{session.joined}/{session.common.comparisons}/{name}"
