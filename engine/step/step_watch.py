"""Whether the updates of an engine are used as meant: they step their optimizers, and nobody else does."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch

from leyden import distributed as dist
from leyden.engine.events.dispatch import RemovableEventHandle
from leyden.engine.events.listeners import Order
from leyden.engine.events.names import Events
from leyden.engine.state import State
from leyden.engine.step.parameters import named_parameters
from leyden.engine.values.whole_numbers import NEVER

if TYPE_CHECKING:
    from leyden.engine.step.update import Update

LOOKED_AT = 3
"""An update's own steps after which nothing is looked at any more, so that steps cost nothing."""
LONG_OPEN = 100
"""Iterations without the end of a batch after which a run says so, where its epoch has not ended before."""
SHOWN = 3
"""Names of parameters in a message."""
OWN = "leyden.engine.step.update"


class StepWatch:
    """Looks at what each update's optimizer trains and at its first steps, once in the update's life; then for batches
    that nobody closes, and at a run's end for updates that did nothing. Rank 0 tells.
    """

    def __init__(self, updates: dict[str, Update]) -> None:
        self._updates = updates
        self._hooks: dict[str, list[Any]] = {}
        self._seen: dict[str, int] = {}  # own steps, by update
        self._told: set[str] = set()
        self._begun_at = 0
        self._steps_at: dict[str, int] = {}  # when the run began
        self._long_open: dict[str, RemovableEventHandle] = {}

    def begin(self, iteration: int) -> None:
        """Called when a run starts."""
        self._begun_at = iteration
        if dist.rank() != 0:
            return
        for name, update in self._updates.items():
            if name not in self._steps_at:
                self._tell_left_out(name)
            self._steps_at[name] = update.steps
            look_late = functools.partial(self._look_late, name)
            handle = update.engine.add_event_handler(Events.ITERATION_COMPLETED, look_late, order=Order.LAST)
            handle.defer_until(iteration + LONG_OPEN)  # a filter would be asked anew in each epoch
            self._long_open[name] = handle
            if self._seen.get(name, 0) < LOOKED_AT:
                watched = [each for each in update.optimizers if hasattr(each, "register_step_post_hook")]
                look = functools.partial(self._look, name)
                self._hooks[name] = [each.register_step_post_hook(look) for each in watched]

    def end(self) -> None:
        """Lets go of the optimizers."""
        for name in tuple(self._hooks):
            self._release(name)
        for handle in self._long_open.values():
            handle.remove()
        self._long_open.clear()

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

    def _tell_left_out(self, name: str) -> None:
        """Warns of parameters that require a gradient and that no optimizer of the engine has."""
        trained = {id(p) for update in self._updates.values() for p in update.trainable()}
        of_model = {id(p): key for key, p in named_parameters(self._updates[name].modules).items() if p.requires_grad}
        if left := [key for each, key in of_model.items() if each not in trained]:
            named = ", ".join(left[:SHOWN]) + ", ..." * (len(left) > SHOWN)
            warnings.warn(
                f'the optimizer of update "{name}" leaves out {len(left)} of the {len(of_model)} parameters of its '
                f"model that require a gradient ({named}): they will not be trained. Freeze what is to stay as it is "
                "(requires_grad_(False), or attach Freeze), or give it to the optimizer; a function that makes the "
                "optimizer is called with all of them",
                stacklevel=5,
            )

    def _look_late(self, name: str) -> None:
        due = self._begun_at + LONG_OPEN
        if self._updates[name].engine.state.iteration >= due:
            self.tell_unclosed(name)
            due = NEVER
        self._long_open[name].defer_until(due)

    def tell_unclosed(self, name: str) -> None:
        """Warns, while a batch of the update is open, if none was closed since the run began."""
        update = self._updates[name]
        iterations = update.engine.state.iteration - self._begun_at
        none_closed = update.is_first_open() and update.steps == self._steps_at.get(name)
        if none_closed and iterations > 1 and name not in self._told:
            self._told.add(name)
            warnings.warn(
                f'update "{name}" went backward, and in the {iterations} iterations of this run so far no batch of it '
                "was closed: all of them are one batch, without a step of the optimizer. Call update.close() after the "
                "last update.accumulate(loss) of a batch; update.backward(loss) is both",
                stacklevel=4,
            )

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
