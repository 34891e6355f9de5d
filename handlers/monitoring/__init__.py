"""Handlers that let a user watch a run."""

from leyden.handlers.monitoring.progress_bar import ProgressBar

__all__ = ["ProgressBar"]
