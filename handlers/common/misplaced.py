"""Warns of trainer handlers attached to an evaluator, where they do nothing, or not what was meant."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, runtime_checkable

from leyden import distributed as dist
from leyden.engine import Engine


@runtime_checkable
class ForTrainers(Protocol):
    """A handler whose place is the engine that trains, not one that is run anew for each evaluation."""

    told_misplaced: bool
    """Once is enough."""

    def on_evaluator(self) -> str | None:
        """What it does on an evaluator, and what to do, in words; None where that makes sense."""


def tell_misplaced(evaluator: Engine[Any, Any], prefix: str) -> None:
    """Warns of such handlers of an evaluator that is run by `Evaluate(prefix=)`; of each once, on rank 0."""
    if evaluator.updates:  # it trains, too
        return
    for handler in evaluator.handlers.values():
        if isinstance(handler, ForTrainers) and not handler.told_misplaced and (why := handler.on_evaluator()):
            handler.told_misplaced = True
            if dist.rank() == 0:
                warnings.warn(
                    f"{type(handler).__name__} is attached to the evaluator of Evaluate(prefix={prefix!r}), which is "
                    f"run anew for each evaluation: {why}",
                    stacklevel=2,
                )
