"""How a run is told to stop, and how the ranks of a job stop together."""

from __future__ import annotations

import time
from enum import Enum
from typing import Any

from leyden import distributed as dist
from leyden.engine.events.filters import NEVER


class Stop(Enum):
    """What may be asked of a run. Asked for in a set, since adding to one is safe from a signal handler or a thread."""

    TERMINATE = "terminate"
    EPOCH = "epoch"
    INTERRUPT = "interrupt"
    AFTER_STEP = "after_step"
    """Goes with INTERRUPT: an iteration that has begun is finished first."""
    DIVERGED = "diverged"
    """Goes with TERMINATE: the numbers are lost."""
    FINISH = "finish"
    """A rank has reached its limit; asked by the engine itself, so that no rank begins an epoch alone."""
    SKIP_COMPLETED = "skip_completed"
    """Goes with TERMINATE: COMPLETED is not fired."""
    SKIP_EPOCH_COMPLETED = "skip_epoch_completed"
    """Goes with EPOCH: EPOCH_COMPLETED is not fired."""
    SAVE = "save"
    """Nothing stops: a checkpoint is asked for, which ranks save after the same iteration."""


ANY_STOP = frozenset({Stop.TERMINATE, Stop.EPOCH, Stop.INTERRUPT})
ENDS_NOW = frozenset({Stop.TERMINATE, Stop.EPOCH})
ENDS_RUN = frozenset({Stop.TERMINATE, Stop.INTERRUPT})


class Terminated(Exception):
    """Leaves the loop of a run."""


class EpochTerminated(Exception):
    """Leaves the loop of an epoch."""


class Interrupted(Exception):
    """Leaves the loop of a run, which can be continued."""


class Suspended(Interrupted):
    """Leaves the handlers of an event too, from the one that raises it; the next run goes on there."""

    place: Any = None
    """The event and the handler, as the event noted when it came by."""


LONGEST_INTERVAL = 64
SECONDS_BETWEEN_POLLS = 0.05


class StopPoll:
    """Lets the ranks agree on stopping, without a step that waits for it.

    Each poll sums a few integers over the ranks beside the work; its outcome is read when the next poll is due, so
    every rank acts on it after the same iteration, at most two intervals (128 iterations) after the wish. Where an
    epoch begins or ends the ranks wait for each other, so there a wish takes effect at once. A rank that has no more
    batches answers polls until all are done: shards of unequal length don't hang.
    """

    def __init__(self) -> None:
        self._agreement = dist.Agreement(len(Stop) + 2)  # the wishes, ranks done, next interval
        self._interval = 1
        self._polled_at = time.perf_counter()
        self.wishes: set[Stop] = set()
        self.due = NEVER

    def start_epoch(self, iteration: int) -> None:
        self._interval = 1
        self.due = iteration + 1

    def poll(self, iteration: int) -> set[Stop]:
        """Reads the poll before, posts the next one; called by each rank after the same iterations."""
        decided = self._read()[0] if self._agreement.pending else set()
        if not decided & ENDS_RUN:
            self._post(done=False)
        self.due = iteration + self._interval
        return decided

    def meet(self) -> set[Stop]:
        """Waits until all ranks are here, or until they decided to stop."""
        decided = self._read()[0] if self._agreement.pending else set()
        while not decided & ENDS_RUN:
            self._post(done=True)
            news, all_done = self._read()
            decided |= news
            if all_done:
                break
        return decided

    def forget(self) -> set[Stop]:
        """What was asked or decided and has not been acted on, which is then forgotten; called by all ranks between
        the same two polls.
        """
        decided = set(self.wishes)
        self.wishes.clear()
        while self._agreement.pending:
            decided |= self._read()[0]
        return decided

    def _post(self, done: bool) -> None:
        flags = []
        for stop in Stop:
            flags.append(int(stop in self.wishes))
            if flags[-1]:
                self.wishes.discard(stop)
        interval = 0
        if dist.rank() == 0:
            now = time.perf_counter()
            pace = SECONDS_BETWEEN_POLLS * self._interval / max(now - self._polled_at, 1e-6)
            # Never more than double: one quick step is no reason to look away for long.
            interval = max(1, min(LONGEST_INTERVAL, 2 * self._interval, round(pace)))
            self._polled_at = now
        self._agreement.post([*flags, int(done), interval])

    def _read(self) -> tuple[set[Stop], bool]:
        *flags, done, self._interval = self._agreement.result()
        return {stop for stop, flag in zip(Stop, flags, strict=True) if flag}, done == dist.world_size()
