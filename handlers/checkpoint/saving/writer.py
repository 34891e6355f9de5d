"""One write at a time, beside training: begun, waited for, its outcome told to all ranks; and what the ranks that write
tell each other.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from leyden import distributed as dist
from leyden.handlers.checkpoint.errors import DirectoryInUseError
from leyden.handlers.checkpoint.store.paths import StoragePath


@dataclass(frozen=True)
class Ended:
    """How a write ended, on all ranks alike: with a checkpoint, or with an error. remarks: what is to be told beside.
    fatal: no later save would go better, since the directory is another run's, or the score no number.
    """

    path: StoragePath
    error: Exception | None = None
    remarks: tuple[str, ...] = ()
    fatal: bool = False


class Writer:
    """Runs one function at a time in a thread; a rank that has nothing to write runs none, and learns of the outcome.

    The thread outlives an interrupted wait: the interpreter does not end before it.
    """

    def __init__(self) -> None:
        self._path: StoragePath | None = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._error: Exception | None = None
        self._remarks: tuple[str, ...] = ()

    @property
    def pending(self) -> bool:
        """Something was begun whose end has not been told."""
        return self._path is not None

    def begin(self, path: StoragePath, write: Callable[[], tuple[str, ...]] | None, *, beside: bool) -> None:
        """Begins to write what will lie at the path; `write` gives remarks, and is None on a rank without work.

        `beside=False`: it has ended when this returns.
        """
        assert self._path is None
        self._error, self._remarks = None, ()
        if write is not None and beside:
            self._done.clear()
            self._thread = threading.Thread(target=self._run, args=(write,), name="leyden-checkpoint")
            self._thread.start()
        elif write is not None:
            self._run(write)
        self._path = path  # last: after a KeyboardInterrupt there is nothing whose end could be told

    def _run(self, write: Callable[[], tuple[str, ...]]) -> None:
        try:
            self._remarks = write()
        except Exception as error:  # raised or told in the training thread
            self._error = error
        finally:
            self._done.set()

    @property
    def _busy(self) -> bool:
        return self._thread is not None and not self._done.is_set()

    def join(self) -> None:
        """Waits for this rank's own part."""
        if self._thread is not None and self._thread.ident is not None:  # it was started
            # Not by its join() alone: before Python 3.13 an interrupt of that marks a thread that goes on as one that
            # has ended, for which nobody waits any more, the interpreter neither.
            self._done.wait()
            self._thread.join()
        self._thread = None

    def ended_here(self) -> Ended | None:
        """Waits for this rank's own part, and tells how it ended without asking the others."""
        self.join()
        if self._path is None:
            return None
        ended = Ended(self._path, self._error, self._remarks, isinstance(self._error, DirectoryInUseError))
        self._path = None
        return ended

    def ended(self, *, wait: bool = True) -> Ended | None:
        """How the write ended; None if nothing was begun or, with `wait=False`, it goes on. All ranks call it."""
        if self._path is None:
            self.join()
            return None
        if dist.world_size() == 1:
            return None if self._busy and not wait else self.ended_here()
        news: Any = None
        if dist.rank() == 0 and (wait or not self._busy):
            self.join()
            told = self._error and f"rank 0 failed: {type(self._error).__name__}: {self._error}"
            news = (told, self._remarks, isinstance(self._error, DirectoryInUseError))
        news = dist.broadcast_object(news)
        if news is None:
            return None
        self.join()
        told, remarks, fatal = news
        own = self._error or (RuntimeError(told) if told else None)
        ended = Ended(self._path, own, remarks, fatal)
        self._path = None
        return ended


T = TypeVar("T")

TIMEOUT = 12 * 3600.0
"""Seconds for which a rank's writer waits for another's, whose disk may be slow."""
GRACE = 5.0
"""Seconds for which it waits still, once the run has failed and the others may be gone."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.2  # seconds between two looks at what the others have left


class Exchange:
    """What the writers of several ranks tell each other, through the store in which the ranks met: no collective that
    those of training could meet, and none that waits for ever for a rank that stands still. One process has nobody to
    talk to.
    """

    def __init__(self) -> None:
        self._abandoned_at: float | None = None

    def begin(self) -> None:
        """A save begins, with all ranks there."""
        self._abandoned_at = None

    def abandon(self) -> None:
        """The run has failed: others are waited for no longer than a moment."""
        self._abandoned_at = time.monotonic()

    def broadcast(self, token: str, value: T) -> T:
        """Rank 0's value. `token`: the save's own word."""
        if dist.world_size() == 1:
            return value
        store, key = dist.store(), f"leyden/save/{token}"
        if dist.rank() == 0:
            store.set(key, pickle.dumps(value))
            return value
        self._wait(lambda: store.check([key]), "rank 0")
        told: T = pickle.loads(store.get(key))
        return told

    def gather(self, token: str, value: T | None) -> dict[int, T]:
        """On rank 0 the value of each rank that has one, by rank; nothing on the others, each of which leaves what it
        has to tell, and counts itself.
        """
        mine: dict[int, T] = {} if value is None else {0: value}
        if dist.world_size() == 1:
            return mine
        store, counter = dist.store(), f"leyden/save/{token}/done"
        keys = [f"leyden/save/{token}/{rank}" for rank in range(1, dist.world_size())]
        if dist.rank() != 0:
            store.set(keys[dist.rank() - 1], b"" if value is None else pickle.dumps(value))
            store.add(counter, 1)
            return {}
        self._wait(lambda: store.add(counter, 0) == len(keys), "the other ranks")
        for rank, data in enumerate(store.multi_get(keys), 1):
            if data:
                mine[rank] = pickle.loads(data)
        for key in (f"leyden/save/{token}", counter, *keys):
            store.delete_key(key)
        return mine

    def _wait(self, is_there: Callable[[], bool], whom: str) -> None:
        pause, until = _FIRST_PAUSE, time.monotonic() + TIMEOUT
        while not is_there():
            now = time.monotonic()
            if now > until or (self._abandoned_at is not None and now > self._abandoned_at + GRACE):
                raise RuntimeError(f"the writer of rank {dist.rank()} has waited in vain for {whom}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
