"""For those who have a checkpoint and no engine: what is in it, and whether it is whole."""

from __future__ import annotations

import os

from leyden.handlers.checkpoint.files.contents import CheckpointContents
from leyden.handlers.checkpoint.files.manifest import MANIFEST, Manifest
from leyden.handlers.checkpoint.store.directory import CheckpointDirectory, describe_place
from leyden.handlers.checkpoint.store.paths import StoragePath, to_path


def read(path: str | os.PathLike[str]) -> CheckpointContents:
    """What a checkpoint holds: its manifest, and its tensors' names, shapes and dtypes, without loading them.

    `path`: the folder of a checkpoint, or a directory of them, for the newest.
    Raises ValueError for a path that is neither, CheckpointDamagedError (a ValueError) for one that can't be read.
    """
    return CheckpointContents.read(locate(path))


def verify(path: str | os.PathLike[str]) -> Manifest:
    """Reads all files of a checkpoint, and compares their sums; gives its manifest.

    `path`: as for `read`. Raises CheckpointDamagedError (a ValueError), which names what is wrong.
    """
    contents = CheckpointContents.read(locate(path))
    contents.verify()
    return contents.manifest


def locate(path: str | os.PathLike[str]) -> StoragePath:
    """The checkpoint at a path: the folder itself, or the newest in a directory.

    Raises ValueError, telling what was found there, if there is none.
    """
    folder = to_path(path)
    if is_checkpoint(folder):
        return folder
    entries = CheckpointDirectory(folder).entries()
    if not entries:
        raise ValueError(
            f"{folder} is no checkpoint: {describe_place(folder)}. Expected is the folder of a checkpoint, which holds "
            f"{MANIFEST}, or a directory of such folders (epoch=0001-iteration=00000100, ...)"
        )
    return entries[-1].path


def is_checkpoint(folder: StoragePath) -> bool:
    """True if the folder has a manifest; whether it is whole is another question."""
    return (folder / MANIFEST).is_file()
