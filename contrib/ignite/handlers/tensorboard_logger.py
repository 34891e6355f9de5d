"""The names of `ignite.handlers.tensorboard_logger`."""

from leyden.contrib.ignite.handlers.log_handlers import OptimizerParamsHandler, OutputHandler, global_step_from_engine
from leyden.contrib.ignite.handlers.loggers import TensorboardLogger
from leyden.contrib.ignite.handlers.weight_handlers import (
    GradsHistHandler,
    GradsScalarHandler,
    WeightsHistHandler,
    WeightsScalarHandler,
)

__all__ = [
    "GradsHistHandler",
    "GradsScalarHandler",
    "OptimizerParamsHandler",
    "OutputHandler",
    "TensorboardLogger",
    "WeightsHistHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]
