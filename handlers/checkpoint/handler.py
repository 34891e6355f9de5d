"""Keeps a run on disk, so that it can stop anywhere and go on."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from leyden import distributed as dist
from leyden.distributed import on_rank_zero
from leyden.engine import Engine, Events, Order, Stage
from leyden.engine.events import AnyEvent
from leyden.handlers.checkpoint.arguments import check_directory, check_moments, check_options
from leyden.handlers.checkpoint.messages import tell_no_model, tell_place
from leyden.handlers.checkpoint.resuming import GoingOn, absolute, check_company, check_places, take_and_find
from leyden.handlers.checkpoint.save_points import AfterEvaluations, Between, Clock, check_event, run_ends_here, save_at
from leyden.handlers.checkpoint.saving.saver import Saver
from leyden.handlers.checkpoint.state.preconditions import require_storable
from leyden.handlers.checkpoint.state.training_state import Stateful
from leyden.handlers.checkpoint.store.directory import CheckpointDirectory
from leyden.handlers.checkpoint.store.lock import DirectoryLock
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.retention import Keeping
from leyden.handlers.common.metric_modes import require_mode
from leyden.handlers.common.watched_metrics import watch_number

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
    unless the metric's name tells (`leyden.handlers.common.metric_modes`). A checkpoint competes if its weights are
    those that the metric was measured on: one saved between two evaluations stays only as one of the last, and an
    evaluation that gives one of the best is saved at once, whatever `event` and `every` say. `keep=None` deletes none.

    `resume`: None begins anew, and wants a directory without checkpoints. "auto" goes on from the newest whole one, or
    begins anew where there is none. A path goes on from that checkpoint, or from the newest in that directory. Of
    several Checkpoints of one engine one resumes; the others go on writing to their directories.

    Saved states find their handlers by class and what tells these apart, in any order of attaching. Where the script is
    not the one whose run goes on, a warning tells how: handlers that came or went, options of optimizers and schedules,
    the data. The options of an optimizer are then those of the checkpoint, except for those that `override` names:
    override=("lr",) takes the script's learning rate, and scales what schedules set by as much.

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
        override: Sequence[str] = (),
    ) -> None:
        check_directory(directory)
        check_moments(every, event, every_minutes)
        flags = {"on_exception": on_exception, "asynchronous": asynchronous}
        check_options(best, resume, on_error, extra, override, flags)
        if best is not None or mode is not None:
            mode = require_mode("Checkpoint", best or "", mode)
        self.keeping = Keeping(keep, best, mode or "max", keep_best)
        self.keeping.check()
        self.directory = absolute(directory)
        self.event = event
        if event is None and not (every is None and every_minutes is not None):
            self.event = Events.EPOCH_COMPLETED(every=1 if every is None else every)
        if self.event is not None:
            check_event(self.event)
        self.every_minutes = every_minutes
        self.on_exception = on_exception
        self.resume: str | StoragePath | None = resume if resume is None or resume == "auto" else absolute(resume)
        self.asynchronous = asynchronous
        self.on_error = on_error
        self.extra = dict(extra or {})
        self._checkpoints = CheckpointDirectory(self.directory)
        self._lock = DirectoryLock(self.directory)
        self._saver = Saver(self._checkpoints, self._lock, self.keeping, raises=on_error == "raise")
        self._record = self._saver.record
        self._engine: Engine[Any, Any] | None = None
        self._going_on = GoingOn(override)
        self._is_set_up = self._told = self.told_misplaced = False
        self._between: Between | None = None
        self._clock: Clock | None = None
        self._muted = False
        self._running = self._broken = self._completed = False

    @property
    def last_path(self) -> StoragePath | None:
        """The newest checkpoint of the directory, once a write of this process has ended; None if there is none."""
        self._saver.writer.join()
        entries = self._checkpoints.entries()
        return entries[-1].path if entries else None

    @property
    def best_path(self) -> StoragePath | None:
        """The best checkpoint of the directory by the metric `best`, likewise; None if none has it."""
        self._saver.writer.join()
        ranked = self.keeping.ranked(self._checkpoints.entries())
        return ranked[0].path if ranked else None

    def on_evaluator(self) -> str | None:
        if self.extra:  # which is saved, though with the evaluator's counts
            return None
        return (
            f"what it saves to {self.directory} holds no model, and nothing that training could go on from. Attach it "
            "to the trainer, where the metrics that Evaluate brings have its prefix before their names"
        )

    @property
    def same_on_ranks(self) -> dict[str, Any]:
        """See `leyden.engine.AlikeOnRanks`. The directory may be each rank's own, on a disk of its node."""
        event = None if self.event is None else str(self.event)
        moments = {"event": event, "every_minutes": self.every_minutes, "best": self.keeping.best}
        return {**moments, "resumes": self.resume is not None, "asynchronous": self.asynchronous}

    def attach(self, engine: Engine[Any, Any]) -> None:
        others = engine.find_handlers(Checkpoint)
        for other in others:
            if other.directory == self.directory:
                raise ValueError(f"two Checkpoints write to {self.directory}; give each a directory of its own")
            if other.resume is not None and self.resume is not None:
                raise ValueError(f"two Checkpoints resume, from {other.resume} and {self.resume}; only one of them can")
        if self._engine is not None:
            raise ValueError("this Checkpoint is attached to an engine already; make one for each")
        if dist.rank() == 0 and not engine.state.dry_run:
            check_places(self._checkpoints, self.resume)
        self._engine = engine
        engine.share_stops()  # ranks save together, so they have to end together
        engine.setup.add(Stage.DEVICE, functools.partial(self._going_on.script.take, engine))
        engine.setup.add(Stage.OPTIMIZER, functools.partial(self._going_on.script.take_late, engine))
        engine.setup.add(Stage.RESTORE, functools.partial(self.set_up, engine))
        if self.keeping.best is not None:
            watch_number(engine, self.keeping.best, "Checkpoint")
        engine.add_event_handler(Events.STARTED, self.start_run)
        engine.add_event_handler(Events.STARTED, self.check_states, order=Order.LAST)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.heed_writer, order=Order.SAVERS)
        if self.event is not None:
            save_at(engine, self.event, self.save_when_due)
        if self.keeping.best is not None:
            AfterEvaluations(engine, self.save_if_best)
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
        if self._muted or self._is_set_up:
            return
        resuming = next((each for each in engine.find_handlers(Checkpoint) if each.resume is not None), self)
        if resuming is not self:
            resuming.set_up(engine)
        self._is_set_up = self._running = True
        engine.require_distinct_handlers()
        if not engine.updates and not self.extra and not self.told_misplaced and dist.rank() == 0:
            tell_no_model(self.directory)
        if resuming is self:
            on_rank_zero(lambda: check_company(self._checkpoints, self.resume))
        candidates = on_rank_zero(lambda: take_and_find(self._checkpoints, self._lock, self.resume))
        if resuming is not self:
            self._begin_beside(resuming, engine)
        if (path := self._going_on.restore(engine, self.extra, candidates)) is not None:
            self._record.note_resumed(engine, path)

    def _begin_beside(self, resuming: Checkpoint, engine: Engine[Any, Any]) -> None:
        """The checkpoints that are there have to be of the run with which another Checkpoint goes on."""
        self._going_on.script = resuming._going_on.script
        if not resuming._record.has_one:
            on_rank_zero(lambda: check_company(self._checkpoints, None))
        elif on_rank_zero(lambda: bool(self._checkpoints.folders())):
            self._record.note_kept(engine)

    def start_run(self, engine: Engine[Any, Any]) -> None:
        """Forgets an earlier run, if this one is from the beginning."""
        self._record.begin_run(engine)
        self._broken = self._completed = False
        if self._muted:
            return
        if not self._running:
            self._running = True
            on_rank_zero(self._lock.take)
        if not self._told:
            self._told = True
            tell_place(self.directory, self.keeping)
        self._going_on.tell(engine)

    def check_states(self, engine: Engine[Any, Any]) -> None:
        """Raises TypeError for a state that no save could store."""
        if not self._muted:
            require_storable(engine, self.extra)

    def heed_writer(self) -> None:
        """Tells of a write that failed meanwhile."""
        self._saver.settle(wait=False)

    def save_when_due(self, engine: Engine[Any, Any]) -> None:
        """Saves in the course of a run; at its last iteration its end is about to be saved instead, unless all stay."""
        if self.keeping.keep is None or not run_ends_here(engine):
            self._save_moment(engine)

    def save_if_best(self, engine: Engine[Any, Any]) -> None:
        """Saves, where no other save fell, what has just been measured as one of the best."""
        if not (self._muted or engine.state.diverged) and self._saver.has_one_of_the_best(engine):
            self._save_moment(engine)

    def _save_moment(self, engine: Engine[Any, Any]) -> None:
        """Saves, unless this very moment is saved already or the numbers are lost."""
        if self._muted or engine.state.diverged or self._record.has(engine):
            return
        self._saver.settle()
        try:
            self._begin(engine, beside=self.asynchronous)
        except Exception as error:  # the store can't be looked at, or a state is no data: all ranks know
            if self._broken and isinstance(error, TypeError):
                raise  # and noted on the error that ended the run
            self._saver.heed_failed_beginning(engine, error)
            return
        if not self.asynchronous:
            self._saver.settle()

    def save_at_end(self, engine: Engine[Any, Any]) -> None:
        """The same where a run ends, if it has done anything; a save of this moment that failed is tried again."""
        self._saver.settle()
        self._completed = not engine.interrupted
        if engine.state.iteration > 0:
            self._save_moment(engine)

    def save_after_exception(self, engine: Engine[Any, Any], error: BaseException) -> None:
        """Saves what can be gone on from, if that was asked for; the error goes on its way in any case."""
        self._broken = True
        self._saver.settle_here()
        if not self.on_exception or self._muted or self._between is None or not self._running:
            return
        if dist.world_size() > 1 or engine.state.iteration == 0 or not self._between.stands(engine):
            logger.info("no checkpoint of the moment of %s: no run could go on from it", type(error).__name__)
            return
        try:
            self._save_moment(engine)
        except Exception as failure:
            error.add_note(f"then saving it failed: {type(failure).__name__}: {failure}")

    def close(self, engine: Engine[Any, Any]) -> None:
        """Waits for the last write, gives the directory back, and raises where the run would end without a trace."""
        try:
            if self._broken:  # other ranks may not come here
                self._saver.settle_here()
                return
            self._saver.settle()
            failure = self._record.failure
            if failure is not None and (self._completed or not self._record.has_one):
                failure.add_note(f"the end of the run is not in {self.directory}")
                raise failure
        finally:
            self._running = False
            self._saver.free()
            self._lock.give_back()

    def request(self) -> None:
        """Asks for a save at the end of the running iteration, on all ranks, of every Checkpoint of the engine; from a
        signal handler or a thread, too.

        Raises RuntimeError if it is attached to no engine.
        """
        if self._engine is None:
            raise RuntimeError("this Checkpoint is attached to no engine, of which a save could be asked")
        self._engine.request_save()

    def save(self, engine: Engine[Any, Any]) -> StoragePath:
        """Saves now, and returns the path of the checkpoint, which is whole once `wait()` returns; without
        `asynchronous`, or while no run goes on, it is when this returns. Where there are several ranks, each calls
        this. In a dry run nothing is saved, and the path is the directory's.

        Raises TypeError for a state that can't be saved, naming it, and OSError if the disk does not take it; the older
        checkpoints are then as they were.
        """
        if self._muted:
            return self.directory
        self._saver.settle()
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
        self._saver.wait()

    def _begin(self, engine: Engine[Any, Any], *, beside: bool) -> StoragePath:
        script = self._going_on.script.state_dict(engine)
        path = self._saver.begin(engine, self.extra, script, beside=beside, buffered=self.asynchronous)
        if self._clock is not None:
            self._clock.restart()
        return path
