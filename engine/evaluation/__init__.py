"""Engines that evaluate: models in eval mode, without gradients, their metrics. `leyden.engine` hands these on."""

from leyden.engine.step.mode_check import ModeCheck
from leyden.engine.step.named_models import models_named_by

__all__ = ["ModeCheck", "models_named_by"]
