"""The directory of a run's checkpoints: what is in it is whole, what is being written or removed has another name.

A checkpoint is written under a temporary name, flushed to disk, and then renamed. Nothing is written over, ever.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
import warnings
from pathlib import Path
from typing import NamedTuple

from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.manifest import MANIFEST, Manifest, verify_files

NAME = re.compile(r"epoch=\d{4,}-iteration=\d{8,}(-save=\d+)?")
TEMPORARY = re.compile(rf"\.tmp-{NAME.pattern}@(?P<host>.+)@(?P<pid>\d+)")
ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a change after which the temporary folder of another machine is taken to be left over."""


class Entry(NamedTuple):
    """A checkpoint of the directory."""

    path: Path
    manifest: Manifest


class CheckpointDirectory:
    """The checkpoints in a local directory, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Manifest] = {}

    def folders(self) -> list[Path]:
        """All folders with the name of a checkpoint, by name; whether they are whole is not looked at."""
        if not self.path.is_dir():
            return []
        return sorted(path for path in self.path.iterdir() if NAME.fullmatch(path.name) and path.is_dir())

    def entries(self) -> list[Entry]:
        """The checkpoints with a readable manifest, the oldest first."""
        known = {}
        for folder in self.folders():
            try:
                known[folder.name] = self._known.get(folder.name) or Manifest.read(folder)
            except CheckpointDamagedError:
                continue
        self._known = known
        return sorted((Entry(self.path / name, manifest) for name, manifest in known.items()), key=_age)

    def newest_whole(self) -> Entry | None:
        """The newest checkpoint whose files are as they were written; each newer, damaged one is told in a warning.

        Raises CheckpointDamagedError if there are checkpoints, but none is whole.
        """
        self._known = {}
        entries = self.entries()
        readable = {entry.path for entry in entries}
        reasons = [_problem(folder) for folder in self.folders() if folder not in readable]
        found = None
        while entries and found is None:
            entry = entries.pop()
            problem = _problem(entry.path)
            if problem is None:
                found = entry
            else:
                reasons.append(problem)
        if found is None and reasons:
            raise CheckpointDamagedError(
                f"no checkpoint in {self.path} is whole: {'; '.join(filter(None, reasons))}. "
                "Move them away to begin from the start"
            )
        for reason in filter(None, reasons):
            warnings.warn(f"a damaged checkpoint is passed over: {reason}", stacklevel=2)
        return found

    def begin(self, epoch: int, iteration: int) -> Path:
        """Makes the folder, with its temporary name, in which the checkpoint of this moment is to be written."""
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        if made:
            _flush(self.path.parent)
        name = base = f"epoch={epoch:04d}-iteration={iteration:08d}"
        number = 1
        while (self.path / name).exists():
            number += 1
            name = f"{base}-save={number}"
        folder = self._temporary(name)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def publish(self, folder: Path) -> Path:
        """Gives a folder that is written and flushed its final name."""
        match = TEMPORARY.fullmatch(folder.name)
        assert match is not None
        final = self.path / folder.name.removeprefix(".tmp-").split("@")[0]
        _flush(folder)
        folder.rename(final)
        _flush(self.path)
        return final

    def remove(self, folder: Path) -> None:
        """Deletes a checkpoint; under a temporary name, so that what is left if this is cut short is no checkpoint."""
        self._known.pop(folder.name, None)
        doomed = self._temporary(folder.name)
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def clean(self) -> None:
        """Deletes what dead processes left half written."""
        if not self.path.is_dir():
            return
        for folder in self.path.iterdir():
            match = TEMPORARY.fullmatch(folder.name)
            if match is not None and _is_abandoned(folder, match["host"], int(match["pid"])):
                shutil.rmtree(folder, ignore_errors=True)  # another rank or run may be cleaning it too

    def _temporary(self, name: str) -> Path:
        return self.path / f".tmp-{name}@{socket.gethostname()}@{os.getpid()}"


def write_file(path: Path, data: bytes) -> None:
    """Writes a file and flushes it to disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _age(entry: Entry) -> tuple[int, str]:
    return entry.manifest.serial, entry.path.name


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is whole."""
    try:
        verify_files(folder, Manifest.read(folder).files)
    except (CheckpointDamagedError, OSError) as error:
        return str(error)
    return None


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


def describe_place(path: Path) -> str:
    """What is found at a path, in words, for an error message."""
    if not path.exists():
        return "there is nothing at that path"
    if not path.is_dir():
        return f"that is a file of {path.stat().st_size} bytes"
    names = sorted(child.name for child in path.iterdir())
    if not names:
        return "that is an empty directory"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"that directory has {', '.join(names[:5])}{more}, and no {MANIFEST}"
