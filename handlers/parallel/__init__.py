"""Handlers that spread a run over many devices."""

from leyden.handlers.parallel.data_parallel import DataParallel

__all__ = ["DataParallel"]
