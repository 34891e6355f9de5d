"""The names of `ignite.handlers`."""

from leyden.contrib.ignite.handlers.checkpoint import Checkpoint, CheckpointEvents, ModelCheckpoint
from leyden.contrib.ignite.handlers.early_stopping import EarlyStopping
from leyden.contrib.ignite.handlers.ema_handler import EMAHandler
from leyden.contrib.ignite.handlers.files import BaseSaveHandler, DiskSaver
from leyden.contrib.ignite.handlers.joined_schedulers import (
    ConcatScheduler,
    ParamGroupScheduler,
    create_lr_scheduler_with_warmup,
)
from leyden.contrib.ignite.handlers.log_handlers import global_step_from_engine
from leyden.contrib.ignite.handlers.loggers import MLflowLogger, TensorboardLogger
from leyden.contrib.ignite.handlers.lr_finder import FastaiLRFinder
from leyden.contrib.ignite.handlers.single_schedulers import (
    CosineAnnealingScheduler,
    LinearCyclicalScheduler,
    LRScheduler,
    ParamScheduler,
    PiecewiseLinear,
)
from leyden.contrib.ignite.handlers.timing import Timer
from leyden.contrib.ignite.handlers.tqdm_logger import ProgressBar
from leyden.handlers import TerminateOnNan, TimeLimit

__all__ = [
    "BaseSaveHandler",
    "Checkpoint",
    "CheckpointEvents",
    "ConcatScheduler",
    "CosineAnnealingScheduler",
    "DiskSaver",
    "EMAHandler",
    "EarlyStopping",
    "FastaiLRFinder",
    "LRScheduler",
    "LinearCyclicalScheduler",
    "MLflowLogger",
    "ModelCheckpoint",
    "ParamGroupScheduler",
    "ParamScheduler",
    "PiecewiseLinear",
    "ProgressBar",
    "TensorboardLogger",
    "TerminateOnNan",
    "TimeLimit",
    "Timer",
    "create_lr_scheduler_with_warmup",
    "global_step_from_engine",
]
