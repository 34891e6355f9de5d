"""Ranks agree on a few whole numbers while they work: no rank waits for the others until a result is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from leyden.distributed.backends import TorchBackend
from leyden.distributed.control_group import control_group
from leyden.distributed.session import session

_RING = 4


class Agreement:
    """Sums of `size` whole numbers over all ranks, posted now and read later.

    Each `post` starts one sum on a gloo group of its own, so neither the accelerator nor the collectives of the
    training step are touched; `result` waits for the oldest one. All ranks make the agreement at the same point, and
    post and read the same number of times. The group's timeout is that of the default group, as `initialize` was given
    it. In one process no group is made and a result is what was posted.

    Args:
        size: how many numbers each post carries, at least 1. They and their sums lie within 64 bits.

    Raises:
        RuntimeError: there are several processes, but `initialize` was not called.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"an Agreement is about at least one number, but got size={size}")
        self.size = size
        backend = session.current()
        alone = backend.place.world_size == 1
        if not alone and backend.group is None:
            raise RuntimeError("an Agreement needs the process group: call leyden.distributed.initialize() first")
        timeout = backend.timeout if isinstance(backend, TorchBackend) else None
        self._exchange: _Alone | _Together = _Alone() if alone else _Together(size, timeout)

    @property
    def pending(self) -> int:
        """How many posts have not been read yet."""
        return len(self._exchange.posted)

    def post(self, values: Sequence[int]) -> None:
        """Start the sum of `values` over all ranks. Returns at once."""
        if len(values) != self.size:
            raise ValueError(f"this Agreement is about {self.size} numbers, but got {len(values)}: {list(values)}")
        self._exchange.post(values)

    def result(self) -> list[int]:
        """The sums of the oldest post that has not been read, waiting for the slowest rank if need be.

        Raises:
            RuntimeError: nothing is pending, or another rank is gone or did not come within the timeout.
        """
        if not self._exchange.posted:
            raise RuntimeError("this Agreement has nothing pending: each result() belongs to one post() before it")
        return self._exchange.result()

    def close(self) -> None:
        """Wait for what is pending and give the group up. All ranks close at the same point."""
        while self._exchange.posted:
            self._exchange.result()
        self._exchange.close()


class _Alone:
    def __init__(self) -> None:
        self.posted: deque[list[int]] = deque()

    def post(self, values: Sequence[int]) -> None:
        self.posted.append(list(values))

    def result(self) -> list[int]:
        return self.posted.popleft()

    def close(self) -> None:
        return


class _Slot:
    """A tensor, and a view of its memory through which Python writes a number in tens of nanoseconds."""

    __slots__ = ("memory", "tensor")

    def __init__(self, size: int) -> None:
        self.tensor = torch.zeros(size, dtype=torch.int64)
        self.memory: memoryview = self.tensor.numpy().data


class _Together:
    def __init__(self, size: int, timeout: timedelta | None) -> None:
        self._size = size
        self._group = control_group(timeout)
        self._free = [_Slot(size) for _ in range(_RING)]
        self.posted: deque[tuple[_Slot, dist.Work]] = deque()

    def post(self, values: Sequence[int]) -> None:
        slot = self._free.pop() if self._free else _Slot(self._size)
        memory = slot.memory
        for i, value in enumerate(values):
            memory[i] = value
        # The group's own method: torch.distributed.all_reduce adds checks that cost twice the call.
        self.posted.append((slot, self._group.allreduce([slot.tensor])))

    def result(self) -> list[int]:
        slot, work = self.posted.popleft()
        try:
            work.wait()
        except RuntimeError as error:
            error.add_note(
                "in agreeing with the other ranks, one of which is gone, or stands still for longer than the timeout "
                "that initialize() was given"
            )
            raise
        sums: list[int] = slot.tensor.tolist()
        self._free.append(slot)
        return sums

    def close(self) -> None:
        dist.destroy_process_group(self._group)
