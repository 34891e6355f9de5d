"""Where a run begins: the directory that it takes, the checkpoint that it goes on from, and in what its script differs
from that of the run before.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.contents import CheckpointContents
from leyden.handlers.checkpoint.files.manifest import verify_files
from leyden.handlers.checkpoint.messages import tell_differences
from leyden.handlers.checkpoint.reading import is_checkpoint, locate
from leyden.handlers.checkpoint.shared_outcomes import on_every_rank
from leyden.handlers.checkpoint.state.script import Script, data_differences, scaler_differences
from leyden.handlers.checkpoint.state.training_state import Loaded, Stateful, load, put_back
from leyden.handlers.checkpoint.store.directory import CheckpointDirectory
from leyden.handlers.checkpoint.store.lock import DirectoryLock
from leyden.handlers.checkpoint.store.paths import StoragePath, to_path

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Candidates:
    """Checkpoints to go on from, the best first. directory: where they were looked for; None for the one that was asked
    for, in whose place no other is taken. damaged: what is wrong with others there.
    """

    paths: Sequence[StoragePath] = ()
    directory: StoragePath | None = None
    damaged: Sequence[str] = ()


def take_and_find(directory: CheckpointDirectory, lock: DirectoryLock, resume: str | StoragePath | None) -> Candidates:
    """Takes the directory, deletes what dead processes left half written, and finds what there is to go on from.

    Raises DirectoryInUseError, OSError.
    """
    lock.take()
    directory.storage.clean()
    if resume is None:
        return Candidates()
    if not isinstance(resume, str):
        if is_checkpoint(resume):
            return Candidates([resume])
        directory = CheckpointDirectory(resume)
    paths, damaged = directory.newest_first()
    return Candidates(paths, directory.path, damaged)


class GoingOn:
    """`override`: the options of optimizers in which the script holds, and not the checkpoint."""

    def __init__(self, override: Sequence[str]) -> None:
        self.override = tuple(override)
        self.script = Script()
        self._path: StoragePath | None = None
        self._saved: Mapping[str, Any] = {}
        self._ranks = 1  # to which the data were dealt
        self._differences: list[str] = []

    def restore(
        self, engine: Engine[Any, Any], extra: Mapping[str, Stateful], candidates: Candidates
    ) -> StoragePath | None:
        """Puts everything back where it was in the first of them that is whole, as each rank finds what it needs of it;
        gives its path. Every rank calls it: what one finds damaged, all pass over, before anything is changed.

        Raises, on all ranks the same, ValueError for a checkpoint of something else, and CheckpointDamagedError if none
        is whole.
        """
        damaged = list(candidates.damaged)
        for path in candidates.paths:
            try:
                loaded = on_every_rank(lambda path=path: _read(engine, extra, path))  # type: ignore[misc]
            except CheckpointDamagedError as error:
                if candidates.directory is None:
                    raise
                damaged.append(str(error))
                continue
            for reason in damaged if dist.rank() == 0 else ():
                warnings.warn(f"a damaged checkpoint is passed over: {reason}", stacklevel=2)
            on_every_rank(lambda loaded=loaded: self._put_back(engine, extra, loaded))  # type: ignore[misc]
            return path
        if damaged:
            raise CheckpointDamagedError(
                f"no checkpoint in {candidates.directory} is whole: {'; '.join(damaged)}. "
                "Move them away to begin from the start"
            )
        return None

    def _put_back(self, engine: Engine[Any, Any], extra: Mapping[str, Stateful], loaded: Loaded) -> None:
        put_back(engine, extra, loaded)
        outline = loaded.contents.outline
        self._path, self._saved = loaded.contents.path, outline.get("script", {})
        self._ranks = loaded.contents.mesh.size("data")
        scalers = [name for name, update in engine.updates.items() if update.slots.scaler is not None]
        self._differences = [
            *self.script.settle(engine, self._saved, self.override),
            *scaler_differences(outline["scalers"], scalers),
            *engine.changed_handlers(),
        ]
        if dist.rank() == 0:
            state, path = engine.state, self._path
            logger.info("resumed from %s: epoch %d, iteration %d", path, state.epoch, state.iteration)
            print(f"Checkpoint: resumed from {path}: epoch {state.epoch}, iteration {state.iteration}", flush=True)

    def tell(self, engine: Engine[Any, Any]) -> None:
        """Once the data of the run is known: warns of what differs."""
        if self._path is not None:
            data = data_differences(engine, self._saved, self._ranks)
            tell_differences(self._path, [*self._differences, *data])
            self._path = None


def _read(engine: Engine[Any, Any], extra: Mapping[str, Stateful], path: StoragePath) -> Loaded:
    contents = CheckpointContents.read(path)
    if not contents.manifest.has_index and dist.rank() == 0:  # nobody else could
        verify_files(path, contents.manifest)
    return load(engine, extra, contents)
