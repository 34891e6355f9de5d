"""Ranks agree on a few whole numbers while they work: no rank waits for the others until a result is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from leyden.distributed.backends import Backend, TorchBackend
from leyden.distributed.control_group import control_group
from leyden.distributed.session import session

_RING = 4
_SHARED_WIDTH = 16  # numbers in each post of those that share the group


class Agreement:
    """Sums of `size` whole numbers over all ranks, posted now and read later.

    Each `post` starts one sum on a gloo group beside the default one, so neither the accelerator nor the collectives of
    the training step are touched; `result` waits for the oldest one. All ranks make the agreement at the same point,
    and post and read the same number of times; those of a process post in the same order on all ranks, since they share
    the group, which `finalize` ends. Ranks that post to different ones are told so. An agreement of more than 14
    numbers, or made in a further thread, has a group of its own, which `close` ends. The timeout is that of the default
    group, as `initialize` was given it. In one process no group is made and a result is what was posted.

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
        self._exchange: _Alone | _Together = _Alone() if alone else _made_together(backend, size)

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
            RuntimeError: nothing is pending, another rank is gone or did not come within the timeout, or the ranks have
                posted to different agreements.
        """
        if not self._exchange.posted:
            raise RuntimeError("this Agreement has nothing pending: each result() belongs to one post() before it")
        return self._exchange.result(self.size)

    def close(self) -> None:
        """Wait for what is pending, and give a group of its own up. All ranks close at the same point."""
        while self._exchange.posted:
            self._exchange.result(self.size)
        self._exchange.close()


class _Alone:
    def __init__(self) -> None:
        self.posted: deque[list[int]] = deque()

    def post(self, values: Sequence[int]) -> None:
        self.posted.append(list(values))

    def result(self, size: int) -> list[int]:
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
    """Sums on a group. On one that others share each post is as wide as theirs, and carries this one's number and its
    square: sums of equal numbers alone have no spread.
    """

    def __init__(self, group: Any, number: int, width: int, *, owned: bool) -> None:
        self._group, self._owned = group, owned
        self._number, self._width = number, width
        self._ranks = session.current().place.world_size
        self._free = [_Slot(width) for _ in range(_RING)]
        self.posted: deque[tuple[_Slot, dist.Work]] = deque()

    def post(self, values: Sequence[int]) -> None:
        slot = self._free.pop() if self._free else _Slot(self._width)
        memory = slot.memory
        memory[0] = number = self._number
        memory[1] = number * number
        for i, value in enumerate(values, 2):
            memory[i] = value
        # The group's own method: torch.distributed.all_reduce adds checks that cost twice the call.
        self.posted.append((slot, self._group.allreduce([slot.tensor])))

    def result(self, size: int) -> list[int]:
        slot, work = self.posted.popleft()
        try:
            work.wait()
        except RuntimeError as error:
            error.add_note(
                "in agreeing with the other ranks, one of which is gone, or stands still for longer than the timeout "
                "that initialize() was given"
            )
            raise
        total, squares, *sums = slot.tensor.tolist()[: size + 2]
        self._free.append(slot)
        number, ranks = self._number, self._ranks
        if total != ranks * number or squares != ranks * number * number:
            raise RuntimeError(
                f"rank {session.current().place.rank} wanted to agree about number {number} of what the ranks agree "
                "about in this process (the stops of an engine, the end of its data), but other ranks were at another: "
                "all ranks have to run the same engines in the same order, in one thread"
            )
        return sums

    def close(self) -> None:
        if self._owned:
            dist.destroy_process_group(self._group)


def _made_together(backend: Backend, size: int) -> _Together:
    timeout = backend.timeout if isinstance(backend, TorchBackend) else None
    if size > _SHARED_WIDTH - 2 or not session.common.in_first_thread():
        return _Together(control_group(timeout), 0, size + 2, owned=True)
    group, number = session.common.join_agreements(lambda: control_group(timeout))
    return _Together(group, number, _SHARED_WIDTH, owned=False)
