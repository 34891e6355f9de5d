"""What is attached to an engine: each behaviour of a run is a handler of its own."""

from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.evaluating import Evaluate
from leyden.handlers.loggers import Logger, MLflowLogger, TensorBoardLogger
from leyden.handlers.monitoring import ProgressBar
from leyden.handlers.parallel import DataParallel
from leyden.handlers.stopping import EarlyStopping, TerminateOnNan, TimeLimit
from leyden.handlers.training import ClipGradients, GradientAccumulation, MixedPrecision, Schedule

__all__ = [
    "Checkpoint",
    "ClipGradients",
    "DataParallel",
    "EarlyStopping",
    "Evaluate",
    "GradientAccumulation",
    "Logger",
    "MLflowLogger",
    "MixedPrecision",
    "ProgressBar",
    "Schedule",
    "TensorBoardLogger",
    "TerminateOnNan",
    "TimeLimit",
]
