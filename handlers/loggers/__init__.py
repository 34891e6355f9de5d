"""Handlers that keep the parameters and the curves of a run. Each imports its backend when a run starts, not before."""

from leyden.handlers.loggers.base import Logger
from leyden.handlers.loggers.entries import Ending, Image, Value
from leyden.handlers.loggers.folders import make_new
from leyden.handlers.loggers.mlflow_logger import MLflowLogger
from leyden.handlers.loggers.tensorboard_logger import TensorBoardLogger

__all__ = ["Ending", "Image", "Logger", "MLflowLogger", "TensorBoardLogger", "Value", "make_new"]
