"""Brings items to a place that may be slow or away for a while, without letting the giver wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

LONGEST_PAUSE = 30.0
PAUSE_AT_END = 0.5


class Delivery(Generic[T]):
    """Sends what is `put` from a thread of its own, in order, all that came together within `interval` seconds at once.

    If `send(items)` raises, they are kept and tried again after growing pauses; so `send` must bear being given an item
    twice. `failure` is what it raised last, None after it went well.
    """

    def __init__(self, send: Callable[[list[T]], None], interval: float = 1.0) -> None:
        self.failure: Exception | None = None
        self._send = send
        self._interval = interval
        self._items: list[T] = []
        self._last: Callable[[], None] | None = None
        self._hurried = False
        self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="leyden-delivery", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items are not delivered yet."""
        return len(self._items)

    def put(self, items: Iterable[T]) -> None:
        with self._changed:
            self._items.extend(items)
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Waits until all is delivered or sending fails, at most `timeout` seconds. True if all is delivered."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._items or self.failure is not None, timeout)
            self._hurried = False
            return not self._items

    def close(self, last: Callable[[], None], timeout: float) -> bool:
        """Delivers what is left, then calls `last`, and ends; gives up after `timeout` seconds. True if it did not."""
        with self._changed:
            self._last = last
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
        return not self._thread.is_alive()

    def _work(self) -> None:
        pause = self._interval
        while not self._abandoned:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._last or self._abandoned)
                if self.failure is None:
                    self._changed.wait_for(lambda: self._hurried or self._last or self._abandoned, self._interval)
                items, last = self._items[:], self._last
            try:
                if items:
                    self._send(items)
                if last is not None and not self._abandoned:
                    last()
            except Exception as failure:  # whatever a backend raises; the owner tells it
                with self._changed:
                    self.failure = failure
                    self._changed.notify_all()
                self._rest(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            with self._changed:
                del self._items[: len(items)]
                self.failure = None
                self._changed.notify_all()
            pause = self._interval
            if last is not None:
                return

    def _rest(self, seconds: float) -> None:
        """Waits before the next attempt; not so long once the end is awaited."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: self._last is not None or self._abandoned, seconds)
            if self._last is not None:
                self._changed.wait_for(lambda: self._abandoned, min(PAUSE_AT_END, max(until - time.monotonic(), 0)))
