"""Handlers: each behaviour of a run is an object of its own that is attached to the engine.

The shapes that ParamSchedule and BatchSizeSchedule follow (Linear, Cosine, ...) are in `leyden.handlers.training`.
"""

from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.data import (
    CombinedLoader,
    DeviceTransfer,
    DryRun,
    LimitBatches,
    Overfit,
    Reproducible,
    seed_everything,
)
from leyden.handlers.evaluating import Evaluate
from leyden.handlers.loggers import Logger, MLflowLogger, TensorBoardLogger
from leyden.handlers.model import (
    ActivationCheckpointing,
    ChannelsLast,
    Compile,
    Finetune,
    Freeze,
    Quantize,
    Unfreeze,
)
from leyden.handlers.monitoring import ProgressBar
from leyden.handlers.parallel import DataParallel, DealData
from leyden.handlers.predicting import predict
from leyden.handlers.preemption import Preemption
from leyden.handlers.searching import BatchSizeFinder, LearningRateFinder
from leyden.handlers.stopping import EarlyStopping, TerminateOnNan, TimeLimit
from leyden.handlers.training import (
    EMA,
    SWA,
    BatchSizeSchedule,
    ClipGradients,
    GradientAccumulation,
    MixedPrecision,
    ParamSchedule,
    Schedule,
    TruncatedBPTT,
    TruncatedBPTTEvents,
)

__all__ = [
    "EMA",
    "SWA",
    "ActivationCheckpointing",
    "BatchSizeFinder",
    "BatchSizeSchedule",
    "ChannelsLast",
    "Checkpoint",
    "ClipGradients",
    "CombinedLoader",
    "Compile",
    "DataParallel",
    "DealData",
    "DeviceTransfer",
    "DryRun",
    "EarlyStopping",
    "Evaluate",
    "Finetune",
    "Freeze",
    "GradientAccumulation",
    "LearningRateFinder",
    "LimitBatches",
    "Logger",
    "MLflowLogger",
    "MixedPrecision",
    "Overfit",
    "ParamSchedule",
    "Preemption",
    "ProgressBar",
    "Quantize",
    "Reproducible",
    "Schedule",
    "TensorBoardLogger",
    "TerminateOnNan",
    "TimeLimit",
    "TruncatedBPTT",
    "TruncatedBPTTEvents",
    "Unfreeze",
    "predict",
    "seed_everything",
]
