"""Handlers that let a user watch a run."""

from leyden.handlers.monitoring.progress_bar import ProgressBar
from leyden.handlers.monitoring.stream import TextStream

__all__ = ["ProgressBar", "TextStream"]
