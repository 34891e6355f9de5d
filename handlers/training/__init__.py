"""Handlers of one optimizer step."""

from leyden.handlers.training.clip_gradients import ClipGradients
from leyden.handlers.training.gradient_accumulation import GradientAccumulation
from leyden.handlers.training.mixed_precision import MixedPrecision
from leyden.handlers.training.schedule import Schedule

__all__ = ["ClipGradients", "GradientAccumulation", "MixedPrecision", "Schedule"]
