"""Handlers that look for good settings before a run."""

from leyden.handlers.searching.batch_size_finder import BatchSizeFinder
from leyden.handlers.searching.learning_rate_finder import LearningRateFinder
from leyden.handlers.searching.range_test import RangeTest
from leyden.handlers.searching.rehearsal import Rehearsal

__all__ = ["BatchSizeFinder", "LearningRateFinder", "RangeTest", "Rehearsal"]
