"""Several batches per optimizer step."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import Engine, Events, Tail
from leyden.engine.values import as_whole
from leyden.handlers.common.number_checks import require_epochs
from leyden.handlers.common.plans import warn_if_beyond

DIVISORS = {"window": False, "steps": True}


class GradientAccumulation:
    """Steps the optimizer once in `steps` batches, with the mean of their gradients; the epoch's last window may be
    shorter.

    `steps`: a number, or numbers by epoch: `{1: 1, 3: 4}` takes 4 batches a step from the third epoch on (before the
    first of them it is 1). `weight(batch)`: a batch's weight in its window, the number of its
    tokens, say; the gradient is then sum(weight * gradient) / sum(weight) over the window and all ranks, that of the
    big batch. A weight given to `update.backward` goes first.

    `tail`: what becomes of a window that an epoch's end cuts short. "step": the optimizer steps with it; "carry": the
    next epoch fills it, the end of the run steps with it; "drop": its gradients are thrown away. `divide_by`: a loss is
    divided by the size of its "window", so that a short one is not damped, or always by "steps", as Lightning does.

    In replicas gradients are exchanged once a window. `update` names the one update it is for; by default all.

    Raises ValueError for a number below 1, a second one on the same update, an engine without an Update.
    """

    told_apart_by = ("update",)
    settings = ("steps", "tail", "divide_by")
    same_on_ranks = ("update", "steps", "weight", "tail", "divide_by")

    def __init__(
        self,
        steps: int | Mapping[int, int],
        *,
        weight: Callable[[Any], torch.Tensor | float] | None = None,
        tail: str = "step",
        divide_by: str = "window",
        update: str | None = None,
    ) -> None:
        schedule = dict(steps) if isinstance(steps, Mapping) else {1: steps}
        if not schedule:
            raise ValueError("GradientAccumulation takes numbers of batches by epoch, but got an empty mapping")
        require_epochs("the plan of GradientAccumulation", schedule)
        for number in schedule.values():
            _check(number, "a whole number of batches", 1, "batch a step")
        schedule = {int(epoch): int(number) for epoch, number in schedule.items()}
        if tail not in [each.value for each in Tail]:
            raise ValueError(f'GradientAccumulation takes tail="step", "carry" or "drop", but got {tail!r}')
        if divide_by not in DIVISORS:
            raise ValueError(f'GradientAccumulation takes divide_by="window" or "steps", but got {divide_by!r}')
        if weight is not None and not callable(weight):
            raise TypeError(f"GradientAccumulation takes weight= as a function of the batch, but got {weight!r}")
        self.steps = schedule if isinstance(steps, Mapping) else schedule[1]
        self.tail = Tail(tail)
        self.divide_by = divide_by
        self.weight = weight
        self._epochs = sorted(schedule)
        self._numbers = [1, *(schedule[epoch] for epoch in self._epochs)]
        self.update = update

    def attach(self, engine: Engine[Any, Any]) -> None:
        for update in engine.targets(self.update, self):
            update.slots.claim("window", self, self._size_on(engine))
            update.slots.tail = self.tail
            update.slots.full_divisor = DIVISORS[self.divide_by]
            update.slots.weight = self.weight
        engine.add_event_handler(Events.STARTED, self._check_reach)

    def _check_reach(self, engine: Engine[Any, Any]) -> None:
        """Warns, when a run starts, of windows that it can't fill."""
        state, largest = engine.state, max(self._numbers[1:])
        warn_if_beyond(engine, "the plan of GradientAccumulation changes in", self._epochs[-1], "that never comes")
        length = state.epoch_length
        if self.tail is Tail.CARRY and length:
            length = length * state.max_epochs if state.max_epochs else state.max_iters
        if not length or largest <= length or state.dry_run or engine.data_setup.varies:
            return
        message = (
            f"GradientAccumulation makes a step of {largest} batches, and "
            f"{'the run' if self.tail is Tail.CARRY else 'an epoch'} has only {length}: "
        )
        if self.tail is Tail.DROP:
            raise ValueError(message + 'with tail="drop" nothing would be trained; take a smaller number')
        if dist.rank() == 0:
            warnings.warn(message + "no window is ever full", stacklevel=2)

    def _size_on(self, engine: Engine[Any, Any]) -> Callable[[], int]:
        if self._epochs == [1]:
            number = self._numbers[1]
            return lambda: number
        state = engine.state
        return lambda: self._numbers[bisect_right(self._epochs, max(state.epoch, 1))]


def _check(number: Any, what: str, least: int, of: str) -> None:
    if as_whole(number) is None:
        raise TypeError(f"GradientAccumulation takes {what}, but got {number!r}")
    if number < least:
        raise ValueError(f"GradientAccumulation needs at least {least} {of}, but got {number}")
