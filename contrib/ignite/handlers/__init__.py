"""The names of `ignite.handlers`."""

from leyden.contrib.ignite.handlers.checkpoint import Checkpoint, CheckpointEvents, ModelCheckpoint
from leyden.contrib.ignite.handlers.ema_handler import EMAHandler
from leyden.contrib.ignite.handlers.files import BaseSaveHandler, DiskSaver
from leyden.contrib.ignite.handlers.joined_schedulers import (
    ConcatScheduler,
    ParamGroupScheduler,
    create_lr_scheduler_with_warmup,
)
from leyden.contrib.ignite.handlers.lr_finder import FastaiLRFinder
from leyden.contrib.ignite.handlers.param_scheduler import (
    CosineAnnealingScheduler,
    LinearCyclicalScheduler,
    LRScheduler,
    ParamScheduler,
    PiecewiseLinear,
)
from leyden.handlers import TerminateOnNan, TimeLimit

__all__ = [
    "BaseSaveHandler",
    "Checkpoint",
    "CheckpointEvents",
    "ConcatScheduler",
    "CosineAnnealingScheduler",
    "DiskSaver",
    "EMAHandler",
    "FastaiLRFinder",
    "LRScheduler",
    "LinearCyclicalScheduler",
    "ModelCheckpoint",
    "ParamGroupScheduler",
    "ParamScheduler",
    "PiecewiseLinear",
    "TerminateOnNan",
    "TimeLimit",
    "create_lr_scheduler_with_warmup",
]
