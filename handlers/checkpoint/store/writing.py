"""Files written once, from end to end: hashed on the way, flushed to disk before they count as written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from leyden.handlers.checkpoint.files.manifest import FileRecord
from leyden.handlers.checkpoint.store.paths import StoragePath

AT_ONCE = 4 * 2**20
"""Bytes that are hashed and written in one go: large enough that Python's lock is let go of while that is done."""


def write_file(path: StoragePath, parts: bytes | Iterable[bytes | memoryview]) -> FileRecord:
    """Writes a new file out of bytes, or parts one after the other, flushed to disk; gives its size and hash.

    Raises OSError, or what the file system of a URL raises.
    """
    if isinstance(parts, bytes):
        if not isinstance(path, Path):  # in one piece: there whole, or not at all
            path.write_bytes(parts)
            return FileRecord(len(parts), hashlib.sha256(parts).hexdigest())
        parts = (parts,)
    digest = hashlib.sha256()
    if not isinstance(path, Path):
        with path.open("wb") as file:
            size = _write(file, parts, digest)
    else:
        with path.open("xb", buffering=0) as file:
            size = _write(file, parts, digest)
            os.fsync(file.fileno())
    return FileRecord(size, digest.hexdigest())


def write_parts(path: StoragePath, parts: Iterable[bytes | memoryview]) -> int:
    """The same without a sum of all; gives the size."""
    if not isinstance(path, Path):
        with path.open("wb") as file:
            return _write(file, parts, None)
    with path.open("xb", buffering=0) as file:
        size = _write(file, parts, None)
        os.fsync(file.fileno())
        return size


def flush_folder(folder: Path) -> None:
    """Flushes the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: IO[bytes], parts: Iterable[bytes | memoryview], digest: Any) -> int:
    size = 0
    for part in parts:
        whole = memoryview(part)
        for start in range(0, len(whole), AT_ONCE):
            piece = whole[start : start + AT_ONCE]
            if digest is not None:
                digest.update(piece)
            size += len(piece)
            while len(piece):  # an unbuffered file may take less than it is given
                piece = piece[file.write(piece) :]
    return size
