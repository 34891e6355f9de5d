"""What the writers of several ranks tell each other, beside the collectives of training."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from leyden import distributed as dist

T = TypeVar("T")

TIMEOUT = timedelta(hours=12)
"""How long a rank's writer waits for another's, whose disk may be slow; a process that is gone is noticed at once."""


class Exchange:
    """Collectives of the writers' own. Where only rank 0 writes there is nobody to talk to."""

    def __init__(self) -> None:
        self._group: Any = None

    def set_up(self) -> None:
        """Makes the group, if there is none; all ranks call it, in the training thread."""
        if self._group is None and dist.world_size() > 1:
            import torch.distributed

            self._group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self._group is None:
            return value
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, 0, group=self._group)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Each rank's value, on rank 0; nothing on the others."""
        if self._group is None:
            return [value]
        import torch.distributed

        gathered: list[Any] | None = [None] * dist.world_size() if dist.rank() == 0 else None
        torch.distributed.gather_object(value, gathered, 0, group=self._group)
        return gathered or []
