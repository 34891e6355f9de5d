"""What is done to models, optimizers and data before a run starts, in the one right order."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class Stage(IntEnum):
    """The stages of a run's setup, gone through before STARTED, whatever the order in which handlers were attached."""

    DEVICE = 1
    QUANTIZE = 2
    TENSOR = 3
    CONTEXT = 4
    ACTIVATION_CHECKPOINTING = 5
    COMPILE = 6
    SHARD = 7
    """Shard or replicate."""
    MATERIALISE = 8
    OPTIMIZER = 9
    """Optimizers are made, or follow the parameters that earlier stages exchanged."""
    AVERAGE = 10
    SCHEDULE = 11
    DATA = 12
    RESTORE = 13


class Setup:
    """The functions of each stage. Each runs once in the engine's life, or at each run if it was added so."""

    def __init__(self) -> None:
        self._functions: list[tuple[Stage, Callable[[], None], bool]] = []

    def add(self, stage: Stage, function: Callable[[], None], *, each_run: bool = False) -> None:
        self._functions.append((stage, function, each_run))
        self._functions.sort(key=lambda item: item[0])

    def run(self, first: Stage, last: Stage) -> None:
        """Runs what waits in the stages from `first` to `last`. One that fails is tried again at the next run."""
        for item in [item for item in self._functions if first <= item[0] <= last]:
            _, function, each_run = item
            function()
            if not each_run:
                self._functions.remove(item)
