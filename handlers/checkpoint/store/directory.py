"""The directory of a run's checkpoints: which there are, from the newest on, and how the next is named."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.manifest import MANIFEST, Manifest
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.storage import LocalStorage, RemoteStorage, Storage


class Entry(NamedTuple):
    """A checkpoint of the directory."""

    path: StoragePath
    manifest: Manifest


class CheckpointDirectory:
    """The checkpoints in a directory, which need not exist yet."""

    def __init__(self, path: StoragePath) -> None:
        self.path = path
        self.storage: Storage = LocalStorage(path) if isinstance(path, Path) else RemoteStorage(path)
        self._known: dict[str, Manifest] = {}
        self._taken: set[str] | None = None

    def folders(self) -> list[StoragePath]:
        """All folders with the name of a checkpoint, by name; whether they are whole is not looked at."""
        return self.storage.folders()

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

    def newest_first(self) -> tuple[list[StoragePath], list[str]]:
        """The checkpoints with a readable manifest, and what is wrong with others that have none."""
        self._known = {}
        entries = self.entries()
        readable = {entry.path for entry in entries}
        reasons = [_problem(folder) for folder in self.folders() if folder not in readable]
        return [entry.path for entry in reversed(entries)], [reason for reason in reasons if reason is not None]

    def next_name(self, epoch: int, iteration: int) -> str:
        """The name of a checkpoint of this moment, which no other has; the directory is looked through once."""
        if self._taken is None:
            self._taken = {folder.name for folder in self.folders()}
        name = base = f"epoch={epoch:04d}-iteration={iteration:08d}"
        number = 1
        while name in self._taken:
            number += 1
            name = f"{base}-save={number}"
        self._taken.add(name)
        return name

    def give_back(self, name: str) -> None:
        """Nothing came of a name: the next save may have it."""
        if self._taken is not None:
            self._taken.discard(name)

    def remove(self, entry: Entry) -> None:
        """Deletes a checkpoint."""
        self._known.pop(entry.path.name, None)
        self.storage.remove(entry.path)


def _age(entry: Entry) -> tuple[int, str]:
    return entry.manifest.serial, entry.path.name


def _problem(folder: StoragePath) -> str | None:
    """Why a checkpoint has no manifest that can be read; None if it has one."""
    try:
        Manifest.read(folder)
    except (CheckpointDamagedError, OSError) as error:
        return str(error)
    return None


def describe_place(path: StoragePath) -> str:
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
