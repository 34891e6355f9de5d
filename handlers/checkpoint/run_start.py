"""Where a run begins: the directory that it takes for itself, and the checkpoint that it goes on from."""

from __future__ import annotations

import os
from pathlib import Path

from leyden.handlers.checkpoint.files.manifest import Manifest, verify_files
from leyden.handlers.checkpoint.reading import is_checkpoint, locate
from leyden.handlers.checkpoint.store.directory import CheckpointDirectory
from leyden.handlers.checkpoint.store.lock import DirectoryLock
from leyden.handlers.checkpoint.store.paths import StoragePath, to_path


def absolute(path: str | os.PathLike[str]) -> StoragePath:
    """The place, whatever the working directory comes to be."""
    place = to_path(path)
    return place.absolute() if isinstance(place, Path) else place


def check_places(directory: CheckpointDirectory, resume: str | StoragePath | None) -> None:
    """Raises ValueError for a path that is no checkpoint, and for a directory that can't be one."""
    if resume is not None and not isinstance(resume, str):
        locate(resume)
    path = directory.path
    if isinstance(path, Path) and path.is_symlink() and not path.exists():
        raise ValueError(
            f"{path} is a link to {os.readlink(path)}, where nothing is; make that directory, or take another"
        )
    if isinstance(path, Path) and path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, where the directory of the checkpoints should be; take another name")


def check_company(directory: CheckpointDirectory, resume: str | StoragePath | None) -> None:
    """Raises ValueError for checkpoints of a run that is not gone on with."""
    if resume is not None and not isinstance(resume, str) and directory.path in (resume, resume.parent):
        return
    folders = directory.folders()
    if folders and resume != "auto":
        raise ValueError(
            f"{directory.path} has {len(folders)} checkpoints of an earlier run (the last: {folders[-1].name}). "
            'Go on from them by resume="auto", take another directory, or move them away'
        )


def take_and_find(
    directory: CheckpointDirectory, lock: DirectoryLock, resume: str | StoragePath | None
) -> StoragePath | None:
    """Takes the directory, deletes what dead processes left half written, and finds the checkpoint to go on from, which
    is verified; None to begin anew.

    Raises DirectoryInUseError, CheckpointDamagedError, OSError.
    """
    lock.take()
    directory.storage.clean()
    if resume is None or isinstance(resume, str):
        entry = directory.newest_whole() if resume == "auto" else None
    elif is_checkpoint(resume):
        verify_files(resume, Manifest.read(resume).files)
        return resume
    else:
        entry = CheckpointDirectory(resume).newest_whole()
    return None if entry is None else entry.path
