"""What the writers of several ranks tell each other, beside the collectives of training."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any, TypeVar

from leyden import distributed as dist

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
