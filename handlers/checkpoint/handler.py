"""Keeps a run on disk, so that it can stop anywhere and go on."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Mapping
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, Stage, UpdateEvents
from leyden.engine.events import AnyEvent, parts_of, without_filter
from leyden.handlers.checkpoint.beginning import absolute, check_places, take_and_find
from leyden.handlers.checkpoint.contents import CheckpointContents
from leyden.handlers.checkpoint.directory import CheckpointDirectory
from leyden.handlers.checkpoint.exchange import Exchange
from leyden.handlers.checkpoint.lock import DirectoryLock
from leyden.handlers.checkpoint.moments import AfterSteps, Between, Clock, check_event
from leyden.handlers.checkpoint.pieces import is_sharded
from leyden.handlers.checkpoint.places import Place
from leyden.handlers.checkpoint.record import SaveRecord
from leyden.handlers.checkpoint.retention import Keeping
from leyden.handlers.checkpoint.saving import take, write
from leyden.handlers.checkpoint.staging import HostBuffer
from leyden.handlers.checkpoint.together import on_every_rank, on_rank_zero
from leyden.handlers.checkpoint.training_state import Stateful, restore
from leyden.handlers.checkpoint.writer import Ended, Writer
from leyden.handlers.metric_modes import require_mode

logger = logging.getLogger(__name__)


class Checkpoint:
    """Saves models, optimizers, counters, handlers' states and random numbers; started again, a run goes on from there.

    Everything attached is saved; the user names nothing. A checkpoint is a folder of `directory`, a path that all ranks
    must see or a URL of any file system that fsspec reaches ("s3://bucket/run"). It becomes a checkpoint when it is
    whole and on disk; only then are older ones deleted. One run at a time writes to a directory.

    When: after each epoch; with `every=n` after each n-th; with `event=Events.ITERATION_COMPLETED(every=500)` then
    instead. `every_minutes`: so long after the last one, besides, or alone if nothing else is given. At the end of the
    iteration in which `request()` is called. And whenever a run ends by its limit, terminate() or interrupt(); not once
    `state.diverged` says that the numbers are lost. `on_exception`: after an exception too, where it came between two
    iterations (of the data, mostly) and one process trains; else no run could go on from there, and the last one stays.
    `save(engine)` saves at any other moment between two steps.

    What is kept: the `keep` last; with `best`, the name of a metric in `state.metrics`, the `keep` best by it and the
    newest, or, with `keep_best`, the `keep_best` best and the `keep` last. `mode`, "max" or "min", says what is best,
    unless the metric's name tells (see `leyden.handlers.metric_modes`). A checkpoint competes if the metric was new in
    it: one saved between two evaluations stays only as one of the last. `keep=None` deletes none.

    `resume`: None begins anew, and wants a directory without checkpoints. "auto" goes on from the newest whole one, or
    begins anew where there is none. A path goes on from that checkpoint, or from the newest in that directory. Of
    several Checkpoints of one engine the first resumes; those after it go on writing to their directories.

    `asynchronous`: training waits for a copy of the tensors in host memory, and a thread writes it while training goes
    on; the run does not end before it. False: training waits for the disk, and no memory is needed for the copy.

    `on_error`: "warn" tells of a save that failed (a full disk, say), and trains on; a run that completes without its
    last checkpoint, or ends without any, raises the error. "raise" raises it at the next save, end of an epoch or run.

    `extra`: further objects with state_dict() and load_state_dict(), by name.

    Raises ValueError for arguments that contradict each other, a directory with checkpoints of another run, a resume
    path that is no checkpoint, and at the start of a run for a metric that will not come up or a checkpoint of another
    model; DirectoryInUseError there if another run writes to the directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every: int | None = None,
        event: AnyEvent | None = None,
        every_minutes: float | None = None,
        on_exception: bool = False,
        best: str | None = None,
        mode: str | None = None,
        keep: int | None = 3,
        keep_best: int | None = None,
        resume: str | os.PathLike[str] | None = None,
        asynchronous: bool = True,
        on_error: str = "warn",
        extra: Mapping[str, Stateful] | None = None,
    ) -> None:
        if best is not None or mode is not None:
            mode = require_mode("Checkpoint", best or "", mode)
        self.keeping = Keeping(keep, best, mode or "max", keep_best)
        self.keeping.check()
        if every is not None and event is not None:
            raise ValueError(f"Checkpoint saves every={every} epochs or at event={event}; give only one of them")
        if every_minutes is not None and not every_minutes > 0:
            raise ValueError(f"Checkpoint saves every so many minutes, more than 0, but got {every_minutes=}")
        if on_error not in ("warn", "raise"):
            raise ValueError(f'Checkpoint needs on_error "warn" or "raise", but got {on_error!r}')
        self.directory = absolute(directory)
        self.event = event
        if event is None and not (every is None and every_minutes is not None):
            self.event = Events.EPOCH_COMPLETED(every=1 if every is None else every)
        if self.event is not None:
            check_event(self.event)
        self.every_minutes = every_minutes
        self.on_exception = on_exception
        self.resume: str | Place | None = resume if resume is None or resume == "auto" else absolute(resume)
        self.asynchronous = asynchronous
        self.on_error = on_error
        self.extra = dict(extra or {})
        for name, item in self.extra.items():
            if not (hasattr(item, "state_dict") and hasattr(item, "load_state_dict")):
                kind = type(item).__name__
                raise TypeError(f"extra {name!r} is a {kind}, which has no state_dict() and load_state_dict()")
        self._shelf = CheckpointDirectory(self.directory)
        self._lock = DirectoryLock(self.directory)
        self._writer = Writer()
        self._exchange = Exchange()
        self._buffer = HostBuffer()
        self._engine: Engine[Any, Any] | None = None
        self._resuming: Checkpoint | None = None
        self._between: Between | None = None
        self._clock: Clock | None = None
        self._muted = False
        self._running = self._broken = self._completed = False
        self._record = SaveRecord()

    @property
    def last_path(self) -> Place | None:
        """The newest checkpoint of the directory, once a write of this process has ended; None if there is none."""
        self._writer.join()
        entries = self._shelf.entries()
        return entries[-1].path if entries else None

    @property
    def best_path(self) -> Place | None:
        """The best checkpoint of the directory by the metric `best`, likewise; None if none has it."""
        self._writer.join()
        ranked = self.keeping.ranked(self._shelf.entries())
        return ranked[0].path if ranked else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        others = engine.find_handlers(Checkpoint)
        for other in others:
            if other.directory == self.directory:
                raise ValueError(f"two Checkpoints write to {self.directory}; give each a directory of its own")
            if other.resume is not None and self.resume is not None:
                raise ValueError(f"two Checkpoints resume, from {other.resume} and {self.resume}; only one of them can")
        if self._engine is not None:
            raise ValueError("this Checkpoint is attached to an engine already; make one for each")
        self._resuming = next((other for other in others if other.resume is not None), None)
        if dist.rank() == 0 and not engine.state.dry_run and self._resuming is None:
            check_places(self._shelf, self.resume)
        self._engine = engine
        engine.share_stops()  # ranks save together, so they have to end together
        engine.setup.add(Stage.RESTORE, functools.partial(self.set_up, engine))
        if self.keeping.best is not None:
            engine.add_event_handler(Events.STARTED, engine.require_metric, self.keeping.best, "Checkpoint")
        engine.add_event_handler(Events.STARTED, self.start_run)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.heed_writer, order=Order.SAVERS)
        for part in () if self.event is None else parts_of(self.event):
            if without_filter(part) is UpdateEvents.STEP_COMPLETED:  # within an iteration
                AfterSteps(engine, part, self.save_when_due)
            else:
                engine.add_event_handler(part, self.save_when_due, order=Order.SAVERS)
        engine.add_event_handler(Events.SAVE_REQUESTED, self.save_when_due)
        engine.add_event_handler(Events.COMPLETED | Events.INTERRUPT, self.save_at_end, order=Order.SAVERS)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.save_after_exception, order=Order.SAVERS)
        engine.add_event_handler(Events.CLOSED, self.close, order=Order.SAVERS)
        if self.every_minutes is not None and dist.rank() == 0:
            self._clock = Clock(engine, self.every_minutes)
        if self.on_exception:
            self._between = Between(engine)

    def mute(self) -> None:
        """From now on nothing is restored, saved or deleted: a dry run."""
        self._muted = True

    def set_up(self, engine: Engine[Any, Any]) -> None:
        """Takes the directory for this run, removes what dead processes left half written, and restores the run if it
        is to go on.
        """
        if self._muted:
            return
        self._running = True
        if not engine.updates and not self.extra and dist.rank() == 0:
            warnings.warn(
                f"the checkpoints in {self.directory} will hold no model: the engine has no Update. Attach Checkpoint "
                "to the engine that trains; for a process function without Update name what is to be saved: "
                'extra={"model": model, "optimizer": optimizer}',
                stacklevel=2,
            )
        path = on_rank_zero(lambda: take_and_find(self._shelf, self._lock, self.resume))
        if any(
            is_sharded(module.parameters()) for update in engine.updates.values() for module in update.modules.values()
        ):
            self._exchange.set_up()
        if self._resuming is not None:
            self._begin_beside(self._resuming, engine)
        if path is None:
            return
        on_every_rank(lambda: restore(engine, self.extra, CheckpointContents.read(path)))
        self._record.note_resumed(engine, path)
        if dist.rank() == 0:
            state = engine.state
            logger.info("resumed from %s: epoch %d, iteration %d", path, state.epoch, state.iteration)

    def _begin_beside(self, resuming: Checkpoint, engine: Engine[Any, Any]) -> None:
        """The checkpoints that are there have to be of the run with which another Checkpoint goes on."""
        if not resuming._record.has_one:
            on_rank_zero(lambda: check_places(self._shelf, None))
        elif on_rank_zero(lambda: bool(self._shelf.folders())):
            self._record.note_kept(engine)

    def start_run(self, engine: Engine[Any, Any]) -> None:
        """Forgets an earlier run, if this one is from the beginning."""
        self._record.begin_run(engine)
        self._broken = self._completed = False
        if not self._muted and not self._running:
            self._running = True
            on_rank_zero(self._lock.take)

    def heed_writer(self) -> None:
        """Tells of a write that failed meanwhile."""
        self._settle(wait=False)

    def save_when_due(self, engine: Engine[Any, Any]) -> None:
        """Saves, unless this very moment is saved already or the numbers are lost."""
        if self._muted or engine.state.diverged:
            return
        if not self._record.has(engine):
            self._settle()
            self._begin(engine, beside=self.asynchronous)
            if not self.asynchronous:
                self._settle()

    def save_at_end(self, engine: Engine[Any, Any]) -> None:
        """The same where a run ends, if it has done anything; a save of this moment that failed is tried again."""
        self._settle()
        self._completed = not engine.interrupted
        if engine.state.iteration > 0:
            self.save_when_due(engine)

    def save_after_exception(self, engine: Engine[Any, Any], error: BaseException) -> None:
        """Saves what can be gone on from, if that was asked for; the error goes on its way in any case."""
        self._broken = True
        self._settle_here()
        if not self.on_exception or self._muted or self._between is None or not self._running:
            return
        if dist.world_size() > 1 or engine.state.iteration == 0 or not self._between.stands(engine):
            logger.info("no checkpoint of the moment of %s: no run could go on from it", type(error).__name__)
            return
        try:
            self.save_when_due(engine)
        except Exception as failure:
            error.add_note(f"then saving it failed: {type(failure).__name__}: {failure}")

    def close(self, engine: Engine[Any, Any]) -> None:
        """Waits for the last write, gives the directory back, and raises where the run would end without a trace."""
        try:
            if self._broken:  # other ranks may not come here
                self._settle_here()
                return
            self._settle()
            failure = self._record.failure
            if failure is not None and (self._completed or not self._record.has_one):
                failure.add_note(f"the end of the run is not in {self.directory}")
                raise failure
        finally:
            self._running = False
            self._buffer = HostBuffer()  # its memory is no longer needed
            self._lock.give_back()

    def request(self) -> None:
        """Asks for a save at the end of the running iteration, on all ranks, of every Checkpoint of the engine; from a
        signal handler or a thread, too.

        Raises RuntimeError if it is attached to no engine.
        """
        if self._engine is None:
            raise RuntimeError("this Checkpoint is attached to no engine, of which a save could be asked")
        self._engine.request_save()

    def save(self, engine: Engine[Any, Any]) -> Place:
        """Saves now, and returns the path of the checkpoint, which is whole once `wait()` returns; without
        `asynchronous`, or while no run goes on, it is when this returns. Where there are several ranks, each calls
        this. In a dry run nothing is saved, and the path is the directory's.

        Raises TypeError for a state that can't be saved, naming it, and OSError if the disk does not take it; the older
        checkpoints are then as they were.
        """
        if self._muted:
            return self.directory
        self._settle()
        running = self._running
        if not running:
            on_rank_zero(self._lock.take)
        try:
            path = self._begin(engine, beside=self.asynchronous and running)
            if not (self.asynchronous and running):
                self.wait()
        finally:
            if not running:
                self._lock.give_back()
        return path

    def wait(self) -> None:
        """Waits until what was saved last is whole. Where there are several ranks, each calls this.

        Raises what kept it from being written.
        """
        ended = self._writer.ended()
        if ended is not None:
            self._note(ended)
            if ended.error is not None:
                raise ended.error

    def _begin(self, engine: Engine[Any, Any], *, beside: bool) -> Place:
        new = self._record.new_metrics(engine)
        buffer = self._buffer if self.asynchronous else None
        taken = take(engine, self.extra, self._shelf, self.keeping.best, new, buffer)
        if taken.together:
            self._exchange.set_up()
        job = functools.partial(
            write,
            taken,
            self._shelf,
            self._lock,
            self.keeping,
            self._record.superseded(engine),
            self._exchange if taken.together else Exchange(),
        )
        path = self.directory / taken.name
        self._writer.begin(path, job if taken.together or dist.rank() == 0 else None, beside=beside)
        self._record.note_begun(engine, path, new)
        if self._clock is not None:
            self._clock.restart()
        return path

    def _settle(self, *, wait: bool = True) -> None:
        """Takes note of how the last write ended, and tells of it as `on_error` says."""
        ended = self._writer.ended(wait=wait)
        if ended is not None:
            self._note(ended)
            if ended.error is not None:
                if self.on_error == "raise" or ended.fatal:
                    raise ended.error
                self._warn_of(ended)

    def _settle_here(self) -> None:
        ended = self._writer.ended_here()
        if ended is not None:
            self._note(ended)
            if ended.error is not None:
                self._warn_of(ended)

    def _note(self, ended: Ended) -> None:
        self._record.note_ended(ended)
        if dist.rank() == 0:
            for remark in ended.remarks:
                warnings.warn(remark, stacklevel=2)

    def _warn_of(self, ended: Ended) -> None:
        if dist.rank() == 0:
            reason = f"{type(ended.error).__name__}: {ended.error}"
            warnings.warn(
                f"the checkpoint {ended.path} could not be written: {reason}. The older ones are as they were",
                stacklevel=2,
            )
