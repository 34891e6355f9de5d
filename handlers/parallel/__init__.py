"""Handlers that spread a run over many devices."""

from leyden.handlers.parallel.data_parallel import DataParallel
from leyden.handlers.parallel.deal_data import DealData

__all__ = ["DataParallel", "DealData"]
