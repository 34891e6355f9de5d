"""Delivers items to a backend that may be slow or out of reach for a while, without making the caller wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

LONGEST_PAUSE = 30.0
PAUSE_AT_END = 0.5


def send_in_parts(
    items: list[T], send: Callable[[list[T]], None], is_refusal: Callable[[Exception], bool]
) -> Iterator[tuple[list[T], Exception | None]]:
    """Sends items in order, at once or, where that is refused, in ever smaller parts, so that none stands in the way of
    the others. Gives each part once it is done with: None if it was sent; a single item that was refused, and why.

    Raises what `send` raises, unless it `is_refusal`.
    """
    try:
        send(items)
    except Exception as error:
        if not is_refusal(error):
            raise
        if len(items) == 1:
            yield items, error
            return
        middle = len(items) // 2
        yield from send_in_parts(items[:middle], send, is_refusal)
        yield from send_in_parts(items[middle:], send, is_refusal)
    else:
        yield items, None


class Delivery(Generic[T]):
    """Sends what is `put` from a thread of its own, in order, all that came together within `interval` seconds at once.

    If `send(items)` raises, they are kept and tried again after growing pauses; so `send` must bear being given an item
    twice. `failure` is what it raised last, None after it went well. If `is_refusal(error)` says that they will never
    be taken, those that cause it are found and set aside, and the others sent. `one_by_one`: each item is sent alone,
    so that one which fails brings none of the others twice.
    """

    def __init__(
        self,
        send: Callable[[list[T]], None],
        is_refusal: Callable[[Exception], bool],
        interval: float = 1.0,
        one_by_one: bool = False,
    ) -> None:
        self.failure: Exception | None = None
        self.end_refused: Exception | None = None
        """Why the last call, made by `close`, can never succeed."""
        self._send = send
        self._is_refusal = is_refusal
        self._interval = interval
        self._one_by_one = one_by_one
        self._items: list[T] = []
        self._refused: list[tuple[T, Exception]] = []
        self._last: Callable[[], None] | None = None
        self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="leyden-delivery", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> list[T]:
        """What may not have been delivered yet."""
        with self._changed:
            return self._items[:]

    def put(self, items: Iterable[T]) -> None:
        with self._changed:
            self._items.extend(items)
            self._changed.notify_all()

    def take_refused(self) -> list[tuple[T, Exception]]:
        """What was set aside since the last call, and why."""
        with self._changed:
            refused, self._refused = self._refused, []
        return refused

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
                    self._changed.wait_for(lambda: self._last or self._abandoned, self._interval)
                items, last = self._items[:], self._last
            try:
                if items:
                    self._deliver(items)
                if last is not None and not self._abandoned:
                    self._finish(last)
            except Exception as failure:  # whatever a backend raises; the owner tells it
                with self._changed:
                    self.failure = failure
                self._rest(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            self.failure = None
            pause = self._interval
            if last is not None:
                return

    def _deliver(self, items: list[T]) -> None:
        for group in [[item] for item in items] if self._one_by_one else [items]:
            for part, refusal in send_in_parts(group, self._send, self._is_refusal):
                with self._changed:
                    del self._items[: len(part)]
                    if refusal is not None:
                        self._refused.append((part[0], refusal))
                if self._abandoned:
                    return

    def _finish(self, last: Callable[[], None]) -> None:
        try:
            last()
        except Exception as failure:
            if not self._is_refusal(failure):
                raise
            self.end_refused = failure

    def _rest(self, seconds: float) -> None:
        """Waits before the next attempt; not so long once the end is awaited."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: self._last is not None or self._abandoned, seconds)
            if self._last is not None:
                self._changed.wait_for(lambda: self._abandoned, min(PAUSE_AT_END, max(until - time.monotonic(), 0)))
