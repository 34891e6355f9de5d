"""What is done to models, optimizers and data before a run starts, in the one right order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Stage(IntEnum):
    """The stages of a run's setup, gone through before STARTED, whatever the order in which handlers were attached."""

    DEVICE = 1
    """Where a model lies: device, dtype, memory format."""
    QUANTIZE = 2
    ADAPT = 3
    """What is trained: adapters put in, parameters frozen."""
    TENSOR = 4
    CONTEXT = 5
    ACTIVATION_CHECKPOINTING = 6
    COMPILE = 7
    SHARD = 8
    """Shard or replicate."""
    MATERIALISE = 9
    OPTIMIZER = 10
    """Optimizers are made, or follow the parameters that earlier stages exchanged."""
    AVERAGE = 11
    SCHEDULE = 12
    DATA = 13
    RESTORE = 14
    SEED = 15
    """Generators, once it is known where the run stands."""


@dataclass(eq=False, repr=False)
class _Task:
    stage: Stage
    function: Callable[[], None]
    owner: str
    each_run: bool
    waits: bool = True


class Setup:
    """The functions of each stage. Each runs once per engine, or at each run if it was added that way."""

    def __init__(self) -> None:
        self._tasks: list[_Task] = []

    def add(self, stage: Stage, function: Callable[[], None], *, owner: object = "", each_run: bool = False) -> None:
        """Adds a function to a stage. `owner`: what `print(engine)` shows for it, a handler or text; "" for nothing."""
        name = owner if isinstance(owner, str) else type(owner).__name__
        self._tasks.append(_Task(stage, function, name, each_run))
        self._tasks.sort(key=lambda task: task.stage)

    def run(self, first: Stage, last: Stage) -> None:
        """Runs the waiting functions of the stages from `first` to `last`. One that fails is tried again at the next
        run.
        """
        for task in [task for task in self._tasks if task.waits and first <= task.stage <= last]:
            task.function()
            task.waits = task.each_run

    def describe(self) -> list[str]:
        """A line for each function that has an owner, in the order in which they run."""
        return [f"{task.stage.name}  {task.owner}" for task in self._tasks if task.owner]
