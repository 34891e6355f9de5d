"""Checkpoints: written whole or not at all, verified before they are read, read without executing anything."""

from leyden.handlers.checkpoint.errors import CheckpointDamagedError, CheckpointTooNewError, DirectoryInUseError
from leyden.handlers.checkpoint.files.contents import CheckpointContents
from leyden.handlers.checkpoint.files.manifest import FileRecord, Manifest
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.handler import Checkpoint
from leyden.handlers.checkpoint.reading import read, verify
from leyden.handlers.checkpoint.weights.export import export_weights
from leyden.handlers.checkpoint.weights.loading import load_weights

__all__ = [
    "Checkpoint",
    "CheckpointContents",
    "CheckpointDamagedError",
    "CheckpointTooNewError",
    "DirectoryInUseError",
    "FileRecord",
    "Manifest",
    "TensorInfo",
    "export_weights",
    "load_weights",
    "read",
    "verify",
]
