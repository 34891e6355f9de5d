"""Names the kind of a torch scheduler, and the numbers it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyden.distributed.compat import MILESTONES, parts_of_scheduler
from leyden.handlers.training.torch_schedulers import Scheduler

PROGRESS = frozenset(
    {"last_epoch", "base_lrs", "best", "num_bad_epochs", "cooldown_counter", "mode_worse", "T_cur", "T_i", "lr_lambdas"}
)
"""Of a scheduler's state, what says how far it has come, and the learning rates, which are the optimizer's."""


def kind_of(scheduler: Scheduler) -> str:
    """Its class, with those that it is made of: SequentialLR(LinearLR, CosineAnnealingLR)."""
    parts = parts_of_scheduler(scheduler)
    within = f"({', '.join(map(kind_of, parts))})" if parts else ""
    return type(scheduler).__name__ + within


def made_with(scheduler: Scheduler, besides: int | None = None) -> dict[str, Any]:
    """The numbers and words that it was made with, by name; those of parts by place and name. Not what is `besides`."""
    numbers: dict[str, Any] = {}
    for name, value in scheduler.state_dict().items():
        if name == MILESTONES:
            numbers["milestones"] = list(value)
        elif not name.startswith("_") and name not in PROGRESS:
            if isinstance(value, Mapping):
                numbers[name] = sorted(value)
            elif isinstance(value, bool | int | float | str | list | tuple) and (besides is None or value != besides):
                numbers[name] = value
    for place, part in enumerate(parts_of_scheduler(scheduler)):
        numbers |= {f"{type(part).__name__}[{place}].{name}": value for name, value in made_with(part, besides).items()}
    return numbers
