"""The name of `ignite.handlers.time_limit`."""

from leyden.handlers import TimeLimit

__all__ = ["TimeLimit"]
