"""The manifest of a checkpoint: what it is, and the size and SHA-256 of each of its files. Written last.

Its own bytes are protected too: it ends with the hash of its content, and a reader accepts no other bytes for that
content.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leyden.handlers.checkpoint.errors import CheckpointDamagedError, CheckpointTooNewError
from leyden.handlers.checkpoint.files.codec import decode, encode
from leyden.handlers.checkpoint.files.validation import parse_json, read_text_file
from leyden.handlers.checkpoint.store.paths import StoragePath

MANIFEST = "manifest.json"
STATE = "state.json"
SCHEMA = 4
"""The layout that this version writes; it reads this one and all before it: in 1 the ranks had nothing for themselves
but random numbers; up to 2 handlers were known by the order of attaching, and nothing was said of the script; up to 3
there was no index, and what ranks had for themselves stood in the one state. With a new number comes a checkpoint in
tests/data, made by the script there.
"""
FIRST_WITH_INDEX = 4


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _version_of_torch() -> str:
    return str(torch.__version__)  # with the build (+cu130), which the package's metadata may leave out


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 (hexadecimal) of a file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: StoragePath) -> FileRecord:
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while data := file.read(2**20):
                digest.update(data)
                size += len(data)
        return cls(size, digest.hexdigest())


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself.

    serial: counts the checkpoints of a directory, so that the newest is known without a clock. epoch_open: it was
    saved in mid-epoch. metrics: those of the engine that were numbers. scored: names of metrics that were new in this
    checkpoint, not left from an evaluation that an earlier one already had. files: the state and the index, which
    knows the others; up to schema 3 all.
    """

    serial: int
    epoch: int
    iteration: int
    step: int
    epoch_open: bool
    world_size: int
    metrics: dict[str, float] = field(default_factory=dict)
    scored: list[str] = field(default_factory=list)
    files: dict[str, FileRecord] = field(default_factory=dict)
    schema: int = SCHEMA
    saved_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    leyden: str = field(default_factory=lambda: _version("leyden"))
    torch: str = field(default_factory=_version_of_torch)

    def to_bytes(self) -> bytes:
        return _seal(encode(asdict(self))[0])

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Raises CheckpointDamagedError for anything but the bytes that `to_bytes` made."""
        try:
            sealed = parse_json(data)
            content = sealed["content"]
            if data != _seal(content):
                raise CheckpointDamagedError("it was altered: its content does not have the SHA-256 it names")
            if content["schema"] > SCHEMA:
                raise CheckpointTooNewError(
                    f"it has schema {content['schema']}, of leyden {content['leyden']}; this one reads up to {SCHEMA}. "
                    "Go on with the newer leyden"
                )
            values = decode(content, _no_tensor)
            values["files"] = {name: FileRecord(**record) for name, record in values["files"].items()}
            for name in (STATE, "index.json") if content["schema"] >= FIRST_WITH_INDEX else (STATE,):
                if name not in values["files"]:
                    raise CheckpointDamagedError(f"it does not list {name}")
            if content["schema"] >= FIRST_WITH_INDEX and len(values["files"]) > 2:
                strange = sorted(map(repr, values["files"].keys() - {STATE, "index.json"}))
                raise CheckpointDamagedError(f"it lists {', '.join(strange)}, of which only the index could know")
            manifest = cls(**values)
            manifest.check_types()
            return manifest
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, CheckpointDamagedError | CheckpointTooNewError):
                raise
            raise CheckpointDamagedError(f"it is no manifest: {type(error).__name__}: {error}") from None

    @property
    def has_index(self) -> bool:
        return self.schema >= FIRST_WITH_INDEX

    def check_types(self) -> None:
        """Raises TypeError for fields that are not what they should be."""
        counts = (self.serial, self.epoch, self.iteration, self.step, self.world_size, self.schema)
        sizes = [record.bytes for record in self.files.values()]
        if not all(type(count) is int and count >= 0 for count in (*counts, *sizes)):
            raise TypeError("a count is not a whole number")
        words = (self.saved_at, self.leyden, self.torch, *(record.sha256 for record in self.files.values()))
        if type(self.epoch_open) is not bool or not all(type(word) is str for word in words):
            raise TypeError("a field is not what it should be")
        if set(numbers(self.metrics)) != set(self.metrics) or not set(self.scored) <= set(self.metrics):
            raise TypeError("a metric is not a number")

    @classmethod
    def read(cls, folder: StoragePath) -> Manifest:
        """The manifest in a folder. Raises CheckpointDamagedError, naming the folder, if there is none that can be
        read, and CheckpointTooNewError for one of a later schema.
        """
        try:
            return cls.from_bytes(read_text_file(folder / MANIFEST))
        except CheckpointTooNewError as error:
            raise CheckpointTooNewError(f"{folder} can't be read: {error}") from None
        except FileNotFoundError:
            reason = "there is none"
        except (OSError, ValueError) as error:
            reason = str(error)
        raise CheckpointDamagedError(f"{folder} has no usable {MANIFEST}: {reason}")


def read_recorded(folder: StoragePath, name: str, manifest: Manifest) -> bytes:
    """The bytes of a file that the manifest has; from schema 4 on with the sum that it has of them.

    Raises OSError, ValueError; CheckpointDamagedError for bytes that were altered.
    """
    record = manifest.files[name]
    if not manifest.has_index:
        return read_text_file(folder / name, record.bytes)
    try:
        data = read_text_file(folder / name)
    except FileNotFoundError:
        raise CheckpointDamagedError(f"{folder} lacks its file {name}") from None
    if len(data) != record.bytes:
        raise CheckpointDamagedError(f"{folder / name} has {len(data)} bytes instead of {record.bytes}")
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise _altered(folder / name)
    return data


def _altered(path: StoragePath) -> CheckpointDamagedError:
    return CheckpointDamagedError(f"{path} was altered: its SHA-256 is not the one in {MANIFEST}")


def verify_files(folder: StoragePath, manifest: Manifest) -> None:
    """Raises CheckpointDamagedError, naming the first file that is not as the manifest has it, or, up to schema 3, one
    of tensors that it does not have.
    """
    files = manifest.files
    for name, record in files.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise CheckpointDamagedError(f"{folder} lacks its file {name}")
        size = path.stat().st_size
        if size != record.bytes:
            raise CheckpointDamagedError(f"{path} has {size} bytes instead of {record.bytes}")
        if FileRecord.of(path) != record:
            raise _altered(path)
    if manifest.has_index:
        return
    if strange := sorted(path.name for path in folder.glob("*.safetensors") if path.name not in files):
        raise CheckpointDamagedError(f"{folder} has {', '.join(strange)}, which {MANIFEST} does not list")


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those of the metrics that are numbers."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in metrics.items()}
    return {name: value for name, value in plain.items() if type(value) in (int, float)}


def _seal(content: Any) -> bytes:
    body = json.dumps(content, indent=1, allow_nan=False)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({"content": content, "sha256": digest}, indent=1, allow_nan=False) + "\n").encode()


def _no_tensor(info: Any) -> Any:
    raise CheckpointDamagedError("it refers to a tensor")
