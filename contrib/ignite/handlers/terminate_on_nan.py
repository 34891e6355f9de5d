"""The name of `ignite.handlers.terminate_on_nan`."""

from leyden.handlers import TerminateOnNan

__all__ = ["TerminateOnNan"]
