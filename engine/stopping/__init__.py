"""Stopping: what a run is asked to do, how it obeys, and how all ranks stop together."""

from leyden.engine.stopping.requests import StopRequests
from leyden.engine.stopping.stops import (
    ANY_STOP,
    ENDS_NOW,
    ENDS_RUN,
    EpochTerminated,
    Interrupted,
    Stop,
    Suspended,
    Terminated,
)

__all__ = [
    "ANY_STOP",
    "ENDS_NOW",
    "ENDS_RUN",
    "EpochTerminated",
    "Interrupted",
    "Stop",
    "StopRequests",
    "Suspended",
    "Terminated",
]
