"""The names of `ignite.exceptions`."""

from leyden.metrics import NotComputableError

__all__ = ["NotComputableError"]
