"""One write at a time, beside training: begun, waited for, its outcome told to all ranks; and what the ranks that write
tell each other.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
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

TIMEOUT = timedelta(hours=12)
"""How long a rank's writer waits for another's, whose disk may be slow; a process that is gone is noticed at once."""


class Exchange:
    """Collectives of the writers' own. One process has nobody to talk to."""

    def __init__(self) -> None:
        self._group: Any = None

    def set_up(self) -> None:
        """Makes the group, if there is none; all ranks call it, in the training thread."""
        if self._group is None and dist.world_size() > 1:
            self._group = dist.control_group(TIMEOUT)

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self._group is None:
            return value
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, 0, group=self._group)
        return box[0]

    def gather(self, value: T | None) -> dict[int, T]:
        """On rank 0 the value of each rank that has one, by rank; nothing on the others, which send a number, and what
        they have to tell, to rank 0 alone.
        """
        if self._group is None:
            return {} if value is None else {0: value}
        import torch
        import torch.distributed

        rank, data = dist.rank(), b"" if value is None else pickle.dumps(value)
        size = torch.tensor([len(data)])
        sizes = [torch.zeros_like(size) for _ in range(dist.world_size())] if rank == 0 else None
        torch.distributed.gather(size, sizes, 0, group=self._group)
        if sizes is None:
            if data:
                torch.distributed.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0, group=self._group)
            return {}
        gathered: dict[int, T] = {} if value is None else {0: value}
        for other, count in enumerate(int(each) for each in sizes):
            if other != 0 and count:
                received = torch.empty(count, dtype=torch.uint8)
                torch.distributed.recv(received, other, group=self._group)
                gathered[other] = pickle.loads(received.numpy().tobytes())
        return gathered
