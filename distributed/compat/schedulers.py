"""Learning-rate schedulers: what those made of others are made of, and the rate that they show.

torch has no public name for the parts of a SequentialLR or ChainedScheduler, nor a way to set what get_last_lr gives.
"""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from leyden.distributed.compat.relied_on import Reasons

PARTS = "_schedulers"
"""Where a scheduler keeps those that it is made of, also in its state."""
MILESTONES = "_milestones"
"""The name of a SequentialLR's milestones in its state."""
LAST_RATES = "_last_lr"
"""Where a scheduler keeps what get_last_lr gives."""

RELIED_ON: Reasons = {
    "torch.optim.lr_scheduler.SequentialLR": {
        "_schedulers": "Schedule finds the scheduler at the end of a run, and what each part sets",
        "_milestones": "Schedule finds where the last part begins",
    },
    "torch.optim.lr_scheduler.ChainedScheduler": {
        "_schedulers": "Schedule finds what each part sets, and how often it has stepped",
    },
    "torch.optim.lr_scheduler.LRScheduler": {
        "_last_lr": "a rate that a search or a changed script sets is the one that is shown",
    },
}


def parts_of_scheduler(scheduler: LRScheduler) -> list[LRScheduler]:
    """The schedulers that it is made of (SequentialLR, ChainedScheduler); none of a simple one."""
    return list(vars(scheduler).get(PARTS, ()))


def milestones_of(scheduler: Any) -> list[int]:
    """When each part of a SequentialLR but the first begins."""
    return list(scheduler._milestones)


def last_rates(scheduler: LRScheduler) -> list[Any]:
    """What get_last_lr gives, to be set; empty where there is nothing yet."""
    rates: list[Any] = getattr(scheduler, LAST_RATES, [])
    return rates
