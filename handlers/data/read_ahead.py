"""Batches on their way to a device while the step before them still runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

from leyden.engine.values import Move, move_nested


class BatchCopier:
    """Copies batches to a device on a stream of their own, or on the current one if the device has no streams or
    `beside` is False.
    """

    def __init__(self, device: torch.device, move: Move, *, beside: bool) -> None:
        self._device = device
        self._move = move
        self._module = stream_module(device) if beside else None
        self._stream: Any = None

    def start(self, batch: Any) -> tuple[Any, Any]:
        """The batch on the device, and the event that is over when it is there; None if nobody needs to wait."""
        module = self._module
        if module is None:
            return move_nested(batch, self._move), None
        if self._stream is None:
            self._stream = module.Stream(device=self._device)
        # The memory that is taken now may be that of a batch which was let go, while work on it is queued: it comes
        # first. That holds for what tensors lie hidden in objects too, and costs less memory than record_stream. The
        # step in work is not queued yet, so the copy runs beside it.
        self._stream.wait_stream(module.current_stream(self._device))
        with module.stream(self._stream):
            moved = move_nested(batch, self._move)
            return moved, self._stream.record_event()

    def hand_over(self, copied: Any) -> None:
        """Lets the work that is queued from now on wait for the copy; the host does not wait."""
        if self._module is not None:
            self._module.current_stream(self._device).wait_event(copied)


class ReadAhead(Iterator[Any]):
    """The batches of an iterator on the device, `ahead` of them read before they are asked for.

    What the iterator raises is raised when that batch is asked for. `state`, if given, tells where the loader stands.
    """

    def __init__(
        self, batches: Iterator[Any], copier: BatchCopier, ahead: int, state: Callable[[], Any] | None = None
    ) -> None:
        self._batches = batches
        self._copier = copier
        self._ahead = ahead
        self._state = state
        # Each a batch on the device, the event of its copy, and the state of the loader after it was read.
        self._ready: deque[tuple[Any, Any, Any]] = deque()
        self._failure: Exception | None = None
        self.state: Any = None
        """Of the loader, after the last batch that was handed out."""

    def __next__(self) -> Any:
        if not self._ready:
            self._read(1)
        if not self._ready:
            failure, self._failure = self._failure, None
            assert failure is not None
            self.state = None  # nothing is read ahead now: the loader tells where it stands
            raise failure
        batch, copied, self.state = self._ready.popleft()
        self._read(self._ahead)
        if copied is not None:
            self._copier.hand_over(copied)
        return batch

    def _read(self, number: int) -> None:
        while len(self._ready) < number and self._failure is None:
            try:
                moved, copied = self._copier.start(next(self._batches))
            except Exception as failure:  # StopIteration too: all of them come in their turn
                self._failure = failure
            else:
                self._ready.append((moved, copied, None if self._state is None else self._state()))


def stream_module(device: torch.device) -> Any:
    """The torch module with the device's streams; None for a device without streams."""
    if device.type == "cpu":
        return None
    module = getattr(torch, device.type, None)
    return module if hasattr(module, "Stream") and hasattr(module, "current_stream") else None
