"""Keeps a run on disk, so that it can stop anywhere and go on."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, Stage
from leyden.engine.events import AnyEvent
from leyden.handlers.checkpoint.contents import CheckpointContents
from leyden.handlers.checkpoint.directory import CheckpointDirectory
from leyden.handlers.checkpoint.manifest import Manifest, verify_files
from leyden.handlers.checkpoint.moments import Place, check_event, place_of
from leyden.handlers.checkpoint.reading import is_checkpoint, locate
from leyden.handlers.checkpoint.retention import rank_by
from leyden.handlers.checkpoint.saving import Keeping, save_checkpoint
from leyden.handlers.checkpoint.together import on_rank_zero
from leyden.handlers.checkpoint.training_state import Stateful, restore

logger = logging.getLogger(__name__)


class Checkpoint:
    """Saves models, optimizers, counters, handlers' states and random numbers; started again, a run goes on from there.

    Everything attached is saved; the user names nothing. A checkpoint is a folder of `directory`, which all ranks must
    see. It is written by rank 0 (by all, where tensors are sharded) under a temporary name, and renamed when it is
    whole and on disk; only then are older ones deleted.

    When: after each epoch; with `every=n` after each n-th; with `event=Events.ITERATION_COMPLETED(every=500)` then
    instead. And whenever a run ends by its limit, terminate() or interrupt(). Not after an exception, nor once
    `state.diverged` says that the numbers are lost. `save(engine)` saves at any other moment between two steps.

    What is kept: the `keep` last; with `best`, the name of a metric in `state.metrics`, the `keep` best by it and the
    newest. `mode`, "max" or "min", says what is best. A checkpoint competes if the metric was new in it: one saved
    between two evaluations stays only while it is the newest. `keep=None` deletes none.

    `resume`: None begins anew, and wants a directory without checkpoints. "auto" goes on from the newest whole one, or
    begins anew if there is none. A path (a checkpoint, or a directory of them) goes on from there. Of several, a
    damaged one is told in a warning and the one before it is taken. This is the last stage of the first run's setup.

    `extra`: further objects with state_dict() and load_state_dict(), by name.

    Raises ValueError for arguments that contradict each other, a directory with checkpoints of another run, a resume
    path that is no checkpoint, and at the start of a run for a metric that will not come up or a checkpoint of another
    model.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every: int | None = None,
        event: AnyEvent | None = None,
        best: str | None = None,
        mode: str = "max",
        keep: int | None = 3,
        resume: str | os.PathLike[str] | None = None,
        extra: Mapping[str, Stateful] | None = None,
    ) -> None:
        if "://" in os.fspath(directory):
            raise ValueError(f"Checkpoint writes to local directories, but got {os.fspath(directory)!r}")
        if mode not in ("max", "min"):
            raise ValueError(f'Checkpoint needs mode "max" or "min", but got {mode!r}')
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise ValueError(f"Checkpoint keeps at least 1 checkpoint, or all by keep=None, but got keep={keep!r}")
        if every is not None and event is not None:
            raise ValueError(f"Checkpoint saves every={every} epochs or at event={event}; give only one of them")
        self.directory = Path(directory).expanduser().absolute()
        self.event = Events.EPOCH_COMPLETED(every=1 if every is None else every) if event is None else event
        check_event(self.event)
        self.keeping = Keeping(keep, best, mode)
        self.resume = resume if resume is None or resume == "auto" else Path(resume).expanduser().absolute()
        self.extra = dict(extra or {})
        for name, item in self.extra.items():
            if not (hasattr(item, "state_dict") and hasattr(item, "load_state_dict")):
                kind = type(item).__name__
                raise TypeError(f"extra {name!r} is a {kind}, which has no state_dict() and load_state_dict()")
        self._shelf = CheckpointDirectory(self.directory)
        self._attached = False
        self._muted = False
        self._last: Path | None = None
        self._place: Place | None = None
        self._times_set: dict[str, int] = {}  # of the metrics, at the last save

    @property
    def last_path(self) -> Path | None:
        """The newest checkpoint of the directory; None if there is none."""
        entries = self._shelf.entries()
        return entries[-1].path if entries else None

    @property
    def best_path(self) -> Path | None:
        """The best checkpoint of the directory by the metric `best`; None if none has it."""
        keeping = self.keeping
        ranked = [] if keeping.best is None else rank_by(self._shelf.entries(), keeping.best, keeping.mode)
        return ranked[0].path if ranked else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        for other in engine.find_handlers(Checkpoint):
            if other.directory == self.directory:
                raise ValueError(f"two Checkpoints write to {self.directory}; give each a directory of its own")
            if other.resume is not None and self.resume is not None:
                raise ValueError(f"two Checkpoints resume, from {other.resume} and {self.resume}; only one of them can")
        if self._attached:
            raise ValueError("this Checkpoint is attached to an engine already; make one for each")
        if dist.rank() == 0 and not getattr(engine.state, "dry_run", False):
            self._check_places()
        self._attached = True
        engine.setup.add(Stage.RESTORE, functools.partial(self.set_up, engine))
        if self.keeping.best is not None:
            engine.add_event_handler(Events.STARTED, engine.require_metric, self.keeping.best, "Checkpoint")
        engine.add_event_handler(Events.STARTED, self.start_run)
        engine.add_event_handler(self.event, self.save_when_due, order=Order.SAVERS)
        engine.add_event_handler(Events.COMPLETED | Events.INTERRUPT, self.save_at_end, order=Order.SAVERS)

    def _check_places(self) -> None:
        if isinstance(self.resume, Path):
            locate(self.resume)
            if self.directory in (self.resume, self.resume.parent):
                return
        folders = self._shelf.folders()
        if folders and self.resume != "auto":
            raise ValueError(
                f"{self.directory} has {len(folders)} checkpoints of an earlier run (the last: {folders[-1].name}). "
                'Go on from them by resume="auto", take another directory, or move them away'
            )

    def mute(self) -> None:
        """From now on nothing is restored, saved or deleted: a dry run."""
        self._muted = True

    def set_up(self, engine: Engine[Any, Any]) -> None:
        """Removes what dead processes left half written, and restores the run if it is to go on."""
        if self._muted:
            return
        path = on_rank_zero(self._clean_and_find)
        if path is None:
            return
        restore(engine, self.extra, CheckpointContents.read(path))
        self._remember(engine, path)
        if dist.rank() == 0:
            state = engine.state
            logger.info("resumed from %s: epoch %d, iteration %d", path, state.epoch, state.iteration)

    def _clean_and_find(self) -> Path | None:
        self._shelf.clean()
        if not isinstance(self.resume, Path):
            entry = self._shelf.newest_whole() if self.resume == "auto" else None
        elif is_checkpoint(self.resume):
            verify_files(self.resume, Manifest.read(self.resume).files)
            return self.resume
        else:
            entry = CheckpointDirectory(self.resume).newest_whole()
        return None if entry is None else entry.path

    def start_run(self, engine: Engine[Any, Any]) -> None:
        """Forgets an earlier run, if this one is from the beginning."""
        if engine.state.iteration == 0:
            self._last = self._place = None

    def save_when_due(self, engine: Engine[Any, Any]) -> None:
        """Saves, unless this very moment is saved already or the numbers are lost."""
        if self._place != place_of(engine) and not engine.state.diverged:
            self.save(engine)

    def save_at_end(self, engine: Engine[Any, Any]) -> None:
        """The same where a run ends, if it has done anything."""
        if engine.state.iteration > 0:
            self.save_when_due(engine)

    def save(self, engine: Engine[Any, Any]) -> Path:
        """Saves now, and returns the checkpoint's path once it is whole. Where there are several ranks, each calls
        this. In a dry run nothing is saved, and the path is the directory's.

        Raises TypeError for a state that can't be saved, naming it, and OSError if the disk does not take it; the older
        checkpoints are then as they were.
        """
        if self._muted:
            return self.directory
        place, times_set = place_of(engine), engine.state.metrics.times_set
        path = save_checkpoint(
            self._shelf,
            engine,
            self.extra,
            self.keeping,
            new_metrics=[name for name, times in times_set.items() if times != self._times_set.get(name)],
            superseded=self._last if self._place is not None and self._place[:2] == place[:2] else None,
        )
        self._remember(engine, path)
        return path

    def _remember(self, engine: Engine[Any, Any], path: Path) -> None:
        self._last, self._place = path, place_of(engine)
        self._times_set = dict(engine.state.metrics.times_set)
