"""The names of `ignite.metrics.nlp` that leyden has; asking for another tells what to write."""

from leyden.contrib.ignite.metrics.elsewhere import not_here
from leyden.metrics import Perplexity

__all__ = ["Perplexity"]

__getattr__ = not_here(__name__)
