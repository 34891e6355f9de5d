"""What is attached to an engine: each behaviour of a run is a handler of its own."""

from leyden.handlers.evaluating import Evaluate
from leyden.handlers.parallel import DataParallel
from leyden.handlers.stopping import EarlyStopping, TerminateOnNan, TimeLimit
from leyden.handlers.training import ClipGradients, GradientAccumulation, MixedPrecision, Schedule

__all__ = [
    "ClipGradients",
    "DataParallel",
    "EarlyStopping",
    "Evaluate",
    "GradientAccumulation",
    "MixedPrecision",
    "Schedule",
    "TerminateOnNan",
    "TimeLimit",
]
