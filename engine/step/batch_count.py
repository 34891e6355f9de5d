"""How many batches an accumulation window has, and which of them closes it. A batch is one backward pass of the update,
or the several that `accumulate` makes of it; how many of them an iteration of the engine has is the user's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from leyden.engine.step.slots import Slots, Tail

if TYPE_CHECKING:
    from leyden.engine.engine import Engine


class BatchCount:
    """The part of an `Update` that counts."""

    engine: Engine[Any, Any]
    slots: Slots

    def __init__(self) -> None:
        self.batch_begun = False
        """The batch in work has been counted into its window."""
        self.batch_open = False
        """Something went backward in the batch that is not closed."""
        self._abandoned = False  # the batch that `close` would have ended was given up
        self._full = 1  # batches in a window that no epoch's end cuts short
        self._size = 1  # batches in the open window
        self._divisor = 1  # of the losses in it
        self._done = 0  # batches of it that are closed
        self._begun_at = 0  # the iteration of the last batch that was begun
        self._several = False  # an iteration may have several batches, so none knows which is an epoch's last
        self._weight: torch.Tensor | float | None = None  # of all that went backward in the window
        self._batch_weight: torch.Tensor | float | None = None  # of the engine's batch by the slot, counted already
        self._weighed_at = -1  # the iteration of that batch
        self._to_be_reduced = False  # the last backward pass left the exchange of gradients to the end of the batch

    def is_between_windows(self) -> bool:
        """No gradient is there that an optimizer's step waits for."""
        return self._done == 0 and not self.batch_open

    def is_first_open(self) -> bool:
        """A batch is open, and it is the first of its window."""
        return self.batch_open and self._done == 0

    def closes_next(self) -> bool:
        """Whether the batch in work, or the next one, will close the window."""
        return self._done + 1 >= self._size

    def begin_batch(self) -> None:
        """Counts the batch into its window; a new window learns its size, which the end of the epoch may cut."""
        self.batch_begun = True
        self._abandoned = False
        self._weighed_at = -1
        slots = self.slots
        if slots.window is None:
            if self._done == 0:
                self._size = self._divisor = 1
            return
        iteration = self.engine.state.iteration
        if iteration == self._begun_at and iteration > 0 and not self._several:
            self._several = True
            self._size = self._full
        self._begun_at = iteration
        if self._done == 0:
            size = self._full = self._size = self._divisor = slots.window()
            if size > 1 and slots.tail is not Tail.DROP and not self._several:
                engine = self.engine
                end = engine.last_iteration if slots.tail is Tail.STEP else engine.run_end
                self._size = min(size, end - max(iteration, 1) + 1)
                if not slots.full_divisor:
                    self._divisor = self._size

    def _begin_without_forward(self) -> None:
        """Begins a batch whose forward pass was not in `forward`; where a slot needs it to be, that is an error."""
        slots = self.slots
        if slots.autocast is not None or slots.sync is not None:
            owner = slots.owners["autocast" if slots.autocast is not None else "sync"]
            raise RuntimeError(f"{owner} needs the forward pass inside `with update.forward():`, before backward()")
        self.begin_batch()
