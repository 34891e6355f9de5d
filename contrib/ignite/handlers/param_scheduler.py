"""The names of `ignite.handlers.param_scheduler`."""

from leyden.contrib.ignite.handlers.joined_schedulers import (
    ConcatScheduler,
    ParamGroupScheduler,
    create_lr_scheduler_with_warmup,
)
from leyden.contrib.ignite.handlers.single_schedulers import (
    CosineAnnealingScheduler,
    CyclicalScheduler,
    LinearCyclicalScheduler,
    LRScheduler,
    ParamScheduler,
    PiecewiseLinear,
)

__all__ = [
    "ConcatScheduler",
    "CosineAnnealingScheduler",
    "CyclicalScheduler",
    "LRScheduler",
    "LinearCyclicalScheduler",
    "ParamGroupScheduler",
    "ParamScheduler",
    "PiecewiseLinear",
    "create_lr_scheduler_with_warmup",
]
