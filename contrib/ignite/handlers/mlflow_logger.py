"""The names of `ignite.handlers.mlflow_logger`."""

from leyden.contrib.ignite.handlers.log_handlers import OptimizerParamsHandler, OutputHandler, global_step_from_engine
from leyden.contrib.ignite.handlers.loggers import MLflowLogger

__all__ = ["MLflowLogger", "OptimizerParamsHandler", "OutputHandler", "global_step_from_engine"]
