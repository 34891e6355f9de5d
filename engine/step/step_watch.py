"""Whether the updates of an engine are used as meant: they step their optimizers, and nobody else does."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch

from leyden import distributed as dist
from leyden.engine.state import State

if TYPE_CHECKING:
    from leyden.engine.step.update import Update

LOOKED_AT = 3
"""An update's own steps after which nothing is looked at any more, so that steps cost nothing."""
OWN = "leyden.engine.step.update"


class StepWatch:
    """Looks at the first steps of each update's optimizer, once in the update's life; and at a run's end for updates
    that did nothing. Rank 0 tells.
    """

    def __init__(self, updates: dict[str, Update]) -> None:
        self._updates = updates
        self._hooks: dict[str, list[Any]] = {}
        self._seen: dict[str, int] = {}  # own steps, by update
        self._told: set[str] = set()
        self._begun_at = 0

    def begin(self, iteration: int) -> None:
        """Called when a run starts."""
        self._begun_at = iteration
        if dist.rank() != 0:
            return
        for name, update in self._updates.items():
            if self._seen.get(name, 0) < LOOKED_AT:
                watched = [each for each in update.optimizers if hasattr(each, "register_step_post_hook")]
                look = functools.partial(self._look, name)
                self._hooks[name] = [each.register_step_post_hook(look) for each in watched]

    def end(self) -> None:
        """Lets go of the optimizers."""
        for name in tuple(self._hooks):
            self._release(name)

    def _release(self, name: str) -> None:
        for hook in self._hooks.pop(name, ()):
            hook.remove()

    def _look(self, name: str, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if torch.compiler.is_compiling():
            return
        self._seen[name] = self._seen.get(name, 0) + 1
        if not _called_by_update():
            self._seen[name] = LOOKED_AT
            self._told.add(name)
            warnings.warn(
                f'a step of {type(optimizer).__name__}, the optimizer of update "{name}", was made outside of the '
                "update: accumulation, clipping, precision, schedules, averages and counts know nothing of it, and "
                "where update.backward() steps as well, the model moves twice for a batch. Let update.backward(loss) "
                "do it alone, without loss.backward() and optimizer.step()",
                stacklevel=3,
            )
        if self._seen[name] >= LOOKED_AT:
            self._release(name)

    def tell_unused(self, state: State) -> None:
        """Where a run ends with a whole epoch: warns of updates that never went backward in it."""
        for name, update in self._updates.items():
            idle = update.steps == 0 and not update.went_backward and name not in self._told
            if idle and state.iteration > self._begun_at and not state.dry_run and dist.rank() == 0:
                self._told.add(name)
                iterations = state.iteration - self._begun_at
                warnings.warn(
                    f'update "{name}" never went backward in the {iterations} iteration{"s" * (iterations > 1)} of '
                    "this run: it trained nothing, and handlers of its steps did nothing. Let the process function "
                    "call update.backward(loss), or make no Update for what is not trained",
                    stacklevel=3,
                )


def _called_by_update() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == OWN:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
