"""Handlers of one optimizer step."""

from leyden.handlers.training.batch_size_schedule import BatchSizeSchedule
from leyden.handlers.training.clip_gradients import ClipGradients
from leyden.handlers.training.curves import Cosine, Cyclic, Exponential, Piecewise, Polynomial
from leyden.handlers.training.ema import EMA
from leyden.handlers.training.gradient_accumulation import GradientAccumulation
from leyden.handlers.training.linear_layers import is_torchaos
from leyden.handlers.training.mixed_precision import MixedPrecision
from leyden.handlers.training.param_schedule import ParamSchedule
from leyden.handlers.training.schedule import Schedule
from leyden.handlers.training.shapes import Concatenate, Constant, Linear, Shape
from leyden.handlers.training.swa import SWA
from leyden.handlers.training.truncated_bptt import TruncatedBPTT, TruncatedBPTTEvents

__all__ = [
    "EMA",
    "SWA",
    "BatchSizeSchedule",
    "ClipGradients",
    "Concatenate",
    "Constant",
    "Cosine",
    "Cyclic",
    "Exponential",
    "GradientAccumulation",
    "Linear",
    "MixedPrecision",
    "ParamSchedule",
    "Piecewise",
    "Polynomial",
    "Schedule",
    "Shape",
    "TruncatedBPTT",
    "TruncatedBPTTEvents",
    "is_torchaos",
]
