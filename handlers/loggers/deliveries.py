"""Two ways to one backend: numbers and parameters go the one, images the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from leyden.handlers.loggers.delivery import Delivery, send_in_parts
from leyden.handlers.loggers.entries import Image, LogEntry

MOST_BYTES = 64 * 2**20
"""Of images that wait for a backend that is away; what comes then is left out."""
LAST_SECONDS = 5.0  # for the end of a run whose images took all the time there was


class Deliveries:
    """Delivers beside the caller, each kind in order. Images often go to another store than numbers, and are larger:
    one that is away or slow holds up no number. The end of the run waits for both.
    """

    def __init__(
        self,
        send: Callable[[list[LogEntry]], None],
        send_image: Callable[[Image], None],
        is_refusal: Callable[[Exception], bool],
    ) -> None:
        """`send` is called from one thread, and `send_image` from another."""
        self._send_image, self._is_refusal = send_image, is_refusal
        self._numbers: Delivery[LogEntry] = Delivery(send, is_refusal)
        self._images: Delivery[Image] | None = None  # a thread for who logs images
        self.end_refused: Exception | None = None
        """Why the end of the run can never be told."""

    @property
    def waiting(self) -> list[LogEntry]:
        """What may not have been delivered yet."""
        return [*self._numbers.waiting, *self._waiting_images()]

    @property
    def failures(self) -> dict[str, Exception]:
        """What each of them raised last, "values" and "images"; without those that went well."""
        failures = {"values": self._numbers.failure, "images": None if self._images is None else self._images.failure}
        return {kind: failure for kind, failure in failures.items() if failure is not None}

    def put(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """Returns those that are not taken: images, where too many wait for a backend that is away."""
        numbers, images = _by_kind(entries)
        if numbers:
            self._numbers.put(numbers)
        left_out: list[LogEntry] = []
        for image in images:
            if self._images is None:
                self._images = Delivery(_each(self._send_image), self._is_refusal, one_by_one=True)
            kept = sum(waiting.pixels.nbytes for waiting in self._waiting_images())
            if self._images.failure is not None and kept + image.pixels.nbytes > MOST_BYTES:
                left_out.append(image)
            else:
                self._images.put([image])
        return left_out

    def take_refused(self) -> list[tuple[LogEntry, Exception]]:
        """What was set aside since the last call, and why."""
        images = [] if self._images is None else self._images.take_refused()
        return [*self._numbers.take_refused(), *images]

    def close(self, last: Callable[[], None], patience: float) -> dict[str, Exception | None]:
        """Delivers what is left, then calls `last`, and ends; gives up after `patience` seconds.

        Returns what was given up, "values" and the end or "images", and the cause.
        """
        until = time.monotonic() + patience
        lost: dict[str, Exception | None] = {}
        if self._images is not None and not self._images.close(lambda: None, patience):
            lost["images"] = self._images.failure
        if not self._numbers.close(last, max(until - time.monotonic(), min(LAST_SECONDS, patience))):
            lost["values"] = self._numbers.failure
        self.end_refused = self._numbers.end_refused
        return lost

    def _waiting_images(self) -> list[Image]:
        return [] if self._images is None else self._images.waiting


def send_at_once(
    entries: Sequence[LogEntry],
    send: Callable[[list[LogEntry]], None],
    send_image: Callable[[Image], None],
    is_refusal: Callable[[Exception], bool],
) -> list[tuple[LogEntry, Exception]]:
    """Sends in this thread; returns what was refused, and why. Raises what sending raises else."""
    numbers, images = _by_kind(entries)
    parts: list[tuple[Sequence[LogEntry], Exception | None]] = []
    if numbers:
        parts += send_in_parts(numbers, send, is_refusal)
    for image in images:
        parts += send_in_parts([image], _each(send_image), is_refusal)
    return [(part[0], reason) for part, reason in parts if reason is not None]


def _each(send: Callable[[Image], None]) -> Callable[[Sequence[Any]], None]:
    def send_each(images: Sequence[Any]) -> None:
        for image in images:
            send(image)

    return send_each


def _by_kind(entries: Sequence[LogEntry]) -> tuple[list[LogEntry], list[Image]]:
    images = [entry for entry in entries if isinstance(entry, Image)]
    return [entry for entry in entries if not isinstance(entry, Image)], images
