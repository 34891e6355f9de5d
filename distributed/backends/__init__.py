"""The ways in which processes talk to each other, each a small class behind one interface."""

from leyden.distributed.backends.base import Backend
from leyden.distributed.backends.serial import SerialBackend
from leyden.distributed.backends.torch import TorchBackend
from leyden.distributed.backends.waiting import WaitingBackend

__all__ = ["Backend", "SerialBackend", "TorchBackend", "WaitingBackend"]
