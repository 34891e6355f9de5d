"""Several batches to an optimizer step."""

from __future__ import annotations

from typing import Any

from leyden.engine import Engine


class GradientAccumulation:
    """Steps the optimizer once in `steps` batches, with the mean of their gradients; the epoch's last window may be
    shorter.

    In replicas gradients are exchanged once a window. `update` names the one update it is for; by default all.

    Raises ValueError for a number below 1, a second one on the same update, an engine without an Update.
    """

    def __init__(self, steps: int, *, update: str | None = None) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise TypeError(f"GradientAccumulation takes a whole number of batches, but got {steps!r}")
        if steps < 1:
            raise ValueError(f"GradientAccumulation needs at least 1 batch a step, but got {steps}")
        self.steps = steps
        self._update = update

    def attach(self, engine: Engine[Any, Any]) -> None:
        for update in engine.targets(self._update, self):
            update.slots.claim("window", self, lambda: self.steps)
