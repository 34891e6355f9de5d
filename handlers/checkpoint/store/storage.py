"""The two ways in which a checkpoint comes to be there at once, whole, and goes at once.

Where there is a rename, it is written under another name. Where there is none (stores of objects), what makes it a
checkpoint is its manifest, which is written last and deleted first; a folder without one is none.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Protocol

from leyden.handlers.checkpoint.files.manifest import MANIFEST
from leyden.handlers.checkpoint.store.paths import RemotePath, StoragePath
from leyden.handlers.checkpoint.store.writing import flush_folder, write_file

NAME = re.compile(r"epoch=\d{4,}-iteration=\d{8,}(-save=\d+)?")
TEMPORARY = re.compile(rf"\.tmp-{NAME.pattern}@(?P<host>.+)@(?P<pid>\d+)")
ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a change after which the temporary folder of another machine is taken to be left over."""


class Storage(Protocol):
    """A directory of checkpoints, as its kind of file system has it."""

    def folders(self) -> list[StoragePath]:
        """All that have the name of a checkpoint, by name; whether they are whole is not looked at."""

    def begin(self, name: str) -> StoragePath:
        """Makes the folder in which the checkpoint of that name is to be written."""

    def publish(self, folder: StoragePath, manifest: bytes) -> StoragePath:
        """Completes such a folder, flushed to disk, by its manifest; gives the checkpoint."""

    def discard(self, folder: StoragePath) -> None:
        """Deletes a folder that was begun, as far as it can be deleted."""

    def remove(self, folder: StoragePath) -> None:
        """Deletes a checkpoint; what is left if that is cut short is no checkpoint."""

    def clean(self) -> None:
        """Deletes what dead processes left half written. Nobody else writes here now."""


class LocalStorage:
    """In a file system of the machine. Nothing is written over, ever."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folders(self) -> list[StoragePath]:
        if not self.path.is_dir():
            return []
        return sorted(path for path in self.path.iterdir() if NAME.fullmatch(path.name) and path.is_dir())

    def begin(self, name: str) -> StoragePath:
        make_directory(self.path)
        folder = self._temporary(name)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def publish(self, folder: StoragePath, manifest: bytes) -> StoragePath:
        assert isinstance(folder, Path)
        write_file(folder / MANIFEST, manifest)
        final = self.path / folder.name.removeprefix(".tmp-").split("@")[0]
        flush_folder(folder)
        folder.rename(final)
        flush_folder(self.path)
        return final

    def discard(self, folder: StoragePath) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def remove(self, folder: StoragePath) -> None:
        assert isinstance(folder, Path)
        doomed = self._temporary(folder.name)
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def clean(self) -> None:
        if not self.path.is_dir():
            return
        for folder in self.path.iterdir():
            match = TEMPORARY.fullmatch(folder.name)
            if match is not None and _is_abandoned(folder, match["host"], int(match["pid"])):
                shutil.rmtree(folder, ignore_errors=True)  # another rank or run may be cleaning it too

    def _temporary(self, name: str) -> Path:
        return self.path / f".tmp-{name}@{socket.gethostname()}@{os.getpid()}"


class RemoteStorage:
    """In any file system that fsspec reaches."""

    def __init__(self, path: RemotePath) -> None:
        self.path = path

    def folders(self) -> list[StoragePath]:
        return [folder for folder in self._named() if (folder / MANIFEST).is_file()]

    def begin(self, name: str) -> StoragePath:
        folder = self.path / name
        if folder.exists():  # without a manifest, or its name would be taken
            self.discard(folder)
        folder.filesystem.makedirs(folder.key, exist_ok=True)
        return folder

    def publish(self, folder: StoragePath, manifest: bytes) -> StoragePath:
        write_file(folder / MANIFEST, manifest)
        return folder

    def discard(self, folder: StoragePath) -> None:
        assert isinstance(folder, RemotePath)
        try:
            folder.filesystem.rm(folder.key, recursive=True)
        except Exception:  # of any file system there is; the next run cleans up
            return

    def remove(self, folder: StoragePath) -> None:
        assert isinstance(folder, RemotePath)
        (folder / MANIFEST).unlink()
        folder.filesystem.rm(folder.key, recursive=True)

    def clean(self) -> None:
        for folder in self._named():
            if not (folder / MANIFEST).is_file():
                self.discard(folder)

    def _named(self) -> list[RemotePath]:
        try:
            return [path for path in self.path.iterdir() if NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []


def make_directory(path: StoragePath) -> bool:
    """Makes a directory with all above it, flushed to disk; False if it is there already."""
    if path.exists():
        return False
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)
        flush_folder(path.parent)
    else:
        path.filesystem.makedirs(path.key, exist_ok=True)
    return True


def _is_abandoned(folder: Path, host: str, pid: int) -> bool:
    import psutil

    if host == socket.gethostname():
        # This process cleans before it writes, so a folder with its number is of an earlier process.
        return pid == os.getpid() or not psutil.pid_exists(pid)
    try:
        times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
    except OSError:
        return False
    return time.time() - max(times) > ABANDONED_AFTER
