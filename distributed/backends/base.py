"""What every backend offers: a few primitives, from which the public collectives are built once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, Protocol

import torch

from leyden.distributed.environment import RankLayout

Reduction = Literal["sum", "product", "min", "max"]


class Backend(Protocol):
    """The primitives of one way to communicate. No primitive changes the tensor that it is given.

    `name` is what the user calls the backend ("serial", "gloo", "nccl"), `family` the library behind it. `group` is
    torch.distributed's default process group as this backend knew it, None where there is none.
    """

    place: RankLayout

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def group(self) -> object | None: ...
    @property
    def size(self) -> int:
        """How many ranks take part in its collectives."""
        ...

    @property
    def index(self) -> int:
        """This rank among those that take part, from 0."""
        ...

    def device(self) -> torch.device:
        """The device on which this rank computes."""
        ...

    def reduce(self, tensor: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        """Combine a tensor of one shape and dtype over all ranks, element by element."""
        ...

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Stack a tensor of one shape and dtype of all ranks: the result has the shape (world_size, *shape)."""
        ...

    def gather_to(self, tensor: torch.Tensor, dst: int) -> torch.Tensor | None:
        """The same on rank `dst` alone, as `index` counts; None on the others."""
        ...

    def broadcast(self, tensor: torch.Tensor, src: int) -> torch.Tensor:
        """The tensor of rank `src`, as `index` counts; the others give one of the same shape and dtype."""
        ...

    def gather_numbers(self, value: float) -> list[bool | int | float]:
        """The number of each rank, by rank, each with the type it had."""
        ...

    def gather_objects(self, value: Any) -> list[Any]:
        """The picklable object of each rank, by rank."""
        ...

    def broadcast_object(self, value: Any, src: int) -> Any:
        """The picklable object of rank `src`."""
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...

    def among(self, group: Any) -> Backend | None:
        """The same among the ranks of a group that `new_group` made; None where this rank is not in it."""
        ...

    def new_group(self, ranks: Sequence[int], timeout: timedelta | None) -> Any:
        """A group of some ranks. Called by every rank, in the group or not."""
        ...

    def close(self) -> None:
        """Leave for good. Called by every rank, in no particular order."""
        ...
