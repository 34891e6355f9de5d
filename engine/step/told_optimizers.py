"""What ranks that train together compare of their optimizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from leyden.engine.events.handler_states import settings_in_words
from leyden.engine.step.late_optimizer import LateOptimizer
from leyden.engine.step.several_optimizers import optimizers_in

if TYPE_CHECKING:
    from leyden.engine.step.update import Update


def optimizers_in_words(updates: Iterable[Update]) -> list[str]:
    """Each optimizer of the updates with the options of its groups, those of groups that are alike once.

    Left out are options that are tensors or functions, an optimizer that is made when the run starts, and those of an
    update that is independent, or whose step somebody else drives: ranks may hold other parts of the model there.
    """
    lines = []
    for update in updates:
        if update.independent or update.slots.driver is not None or isinstance(update.optimizer, LateOptimizer):
            continue
        for optimizer in optimizers_in(update.optimizer):
            groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            told = dict.fromkeys(f"({settings_in_words(group)})" for group in groups)
            lines.append(f"{type(optimizer).__name__}{''.join(told)} to {update.name!r}")
    return lines
