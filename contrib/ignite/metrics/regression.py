"""The names of `ignite.metrics.regression` that leyden has; asking for another tells what to write."""

from leyden.contrib.ignite.metrics.elsewhere import not_here
from leyden.metrics import R2Score

__all__ = ["R2Score"]

__getattr__ = not_here(__name__)
