"""One process: every collective is the identity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

from leyden.distributed.backends.base import Reduction
from leyden.distributed.devices import device_of_rank
from leyden.distributed.environment import RankLayout


class SerialBackend:
    """The backend of a process that is alone."""

    name = "serial"
    family = "serial"
    group: object | None = None
    size = 1
    index = 0

    def __init__(self, place: RankLayout | None = None) -> None:
        self.place = place or RankLayout()

    def device(self) -> torch.device:
        return device_of_rank(None)

    def reduce(self, tensor: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        return tensor.detach().clone()

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().clone().unsqueeze(0)

    def gather_to(self, tensor: torch.Tensor, dst: int) -> torch.Tensor | None:
        return self.gather(tensor)

    def broadcast(self, tensor: torch.Tensor, src: int) -> torch.Tensor:
        return tensor.detach().clone()

    def gather_numbers(self, value: float) -> list[bool | int | float]:
        return [value]

    def gather_objects(self, value: Any) -> list[Any]:
        return [value]

    def broadcast_object(self, value: Any, src: int) -> Any:
        return value

    def barrier(self) -> None:
        return

    def among(self, group: Any) -> SerialBackend:
        return self

    def new_group(self, ranks: Sequence[int], timeout: timedelta | None) -> Any:
        return tuple(ranks)

    def close(self) -> None:
        return
