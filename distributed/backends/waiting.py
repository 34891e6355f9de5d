"""Several processes, but no group yet: the environment tells the ranks, and every collective says what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

import torch

from leyden.distributed.backends.base import Reduction
from leyden.distributed.devices import device_of_rank
from leyden.distributed.environment import Environment


class WaitingBackend:
    """The backend of a process that the environment describes as one of several, before `initialize`."""

    name = "uninitialized"
    family = "uninitialized"
    group: object | None = None

    def __init__(self, environment: Environment) -> None:
        self.place = environment.place
        self.size = environment.place.world_size
        self.index = environment.place.rank
        self._launcher = environment.launcher

    def device(self) -> torch.device:
        return device_of_rank(self.place.local_rank)

    def reduce(self, tensor: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        self._refuse()

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        self._refuse()

    def gather_to(self, tensor: torch.Tensor, dst: int) -> torch.Tensor | None:
        self._refuse()

    def broadcast(self, tensor: torch.Tensor, src: int) -> torch.Tensor:
        self._refuse()

    def gather_numbers(self, value: float) -> list[bool | int | float]:
        self._refuse()

    def gather_objects(self, value: Any) -> list[Any]:
        self._refuse()

    def broadcast_object(self, value: Any, src: int) -> Any:
        self._refuse()

    def barrier(self) -> None:
        self._refuse()

    def among(self, group: Any) -> WaitingBackend:
        self._refuse()

    def new_group(self, ranks: Sequence[int], timeout: timedelta | None) -> Any:
        self._refuse()

    def close(self) -> None:
        return

    def _refuse(self) -> NoReturn:
        raise RuntimeError(
            f"a collective needs all {self.place.world_size} processes that the environment describes "
            f"({self._launcher}), but they are not joined yet: attach DataParallel() to the engine, or call "
            "leyden.distributed.initialize() first"
        )
