"""How the ranks of a job agree to stop after the same iteration."""

from __future__ import annotations

import time

from leyden import distributed as dist
from leyden.engine.stopping.stops import ENDS_RUN, Stop
from leyden.engine.values.whole_numbers import NEVER

LONGEST_INTERVAL = 64
SECONDS_BETWEEN_POLLS = 0.05


class StopPoll:
    """Lets the ranks agree on stopping, without a step that waits for it.

    Each poll sums a few integers over the ranks beside the work; its outcome is read when the next poll is due, so
    every rank acts on it after the same iteration, at most two intervals (128 iterations) after the request. Where an
    epoch begins or ends the ranks wait for each other, so there a request takes effect at once. A rank that has no more
    batches answers polls until all are done: shards of unequal length don't hang.
    """

    def __init__(self) -> None:
        self._agreement = dist.Agreement(len(Stop) + 2)  # the requests, ranks done, next interval
        self._interval = 1
        self._polled_at = time.perf_counter()
        self.requests: set[Stop] = set()
        self.due = NEVER

    def start_epoch(self, iteration: int) -> None:
        self._interval = 1
        self.due = iteration + 1

    def poll(self, iteration: int) -> set[Stop]:
        """Reads the previous poll and posts the next one; each rank calls this after the same iterations."""
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
        decided = set(self.requests)
        self.requests.clear()
        while self._agreement.pending:
            decided |= self._read()[0]
        return decided

    def _post(self, done: bool) -> None:
        flags = []
        for stop in Stop:
            flags.append(int(stop in self.requests))
            if flags[-1]:
                self.requests.discard(stop)
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
