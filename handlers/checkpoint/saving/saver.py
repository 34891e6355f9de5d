"""One save after the other of a run: begun, followed to its end, and told of as the user wants it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from leyden.distributed import on_rank_zero
from leyden.engine import Engine
from leyden.handlers.checkpoint.errors import ScoreError
from leyden.handlers.checkpoint.files.manifest import numbers
from leyden.handlers.checkpoint.files.shards import HostBuffer
from leyden.handlers.checkpoint.messages import tell_failure, tell_remarks
from leyden.handlers.checkpoint.saving.record import SaveRecord
from leyden.handlers.checkpoint.saving.save import take, write
from leyden.handlers.checkpoint.saving.writer import Ended, Exchange, Writer
from leyden.handlers.checkpoint.state.training_state import Stateful
from leyden.handlers.checkpoint.store.directory import CheckpointDirectory
from leyden.handlers.checkpoint.store.lock import DirectoryLock
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.retention import Keeping


class Saver:
    """`raises`: a save that failed ends the run; else a warning tells of it. Every rank calls the same methods."""

    def __init__(
        self, checkpoints: CheckpointDirectory, lock: DirectoryLock, keeping: Keeping, *, raises: bool
    ) -> None:
        self.record = SaveRecord()
        self.writer = Writer()
        self.exchange = Exchange()
        self._checkpoints = checkpoints
        self._lock = lock
        self._keeping = keeping
        self._raises = raises
        self._buffers = HostBuffer(), HostBuffer()

    def begin(
        self,
        engine: Engine[Any, Any],
        extra: Mapping[str, Stateful],
        script: Mapping[str, Any],
        *,
        beside: bool,
        buffered: bool,
    ) -> StoragePath:
        """Begins to save this moment, in a thread with `beside`; `buffered`: from a copy in host memory."""
        new = self.record.new_metrics(engine)
        buffers = self._buffers if buffered else None
        self.exchange.begin()
        taken = take(engine, extra, self._checkpoints, self._keeping.best, new, buffers, script)
        job = functools.partial(
            write,
            taken,
            self._checkpoints,
            self._lock,
            self._keeping,
            self.record.superseded(engine),
            self.exchange,
        )
        path = self._checkpoints.path / taken.name
        self.writer.begin(path, job, beside=beside)
        self.record.note_begun(engine, path, new)
        return path

    def has_one_of_the_best(self, engine: Engine[Any, Any]) -> bool:
        """Whether this moment, which is not saved, has the metric anew, and as one of the best. Every rank calls it."""
        return not self.record.has(engine) and on_rank_zero(lambda: self._would_be_best(engine))

    def _would_be_best(self, engine: Engine[Any, Any]) -> bool:
        best = self._keeping.best
        if best is None or best not in self.record.new_metrics(engine):
            return False
        value = numbers(engine.state.metrics).get(best)
        if value is None:  # no number, of which the save tells
            return True
        self.writer.join()
        try:
            return self._keeping.would_be_best(value, self._checkpoints.entries())
        except OSError:  # a store that is down, of which the save tells, too
            return True

    def heed_failed_beginning(self, engine: Engine[Any, Any], error: Exception) -> None:
        """A save came to nothing before anything was written: the store could not be looked at, a state was no data."""
        self.record.note_not_begun(engine, error)
        self._heed(Ended(self._checkpoints.path, error, fatal=isinstance(error, ScoreError)))

    def settle(self, *, wait: bool = True) -> None:
        """Takes note of how the last write ended, and tells of it."""
        ended = self.writer.ended(wait=wait)
        if ended is not None:
            self._note(ended)
            self._heed(ended)

    def settle_here(self) -> None:
        """The same for this rank's own part, without asking the others, who may be gone."""
        self.exchange.abandon()
        ended = self.writer.ended_here()
        if ended is not None:
            self._note(ended)
            if ended.error is not None:
                tell_failure(ended, self._keeping)

    def wait(self) -> None:
        """Waits for the last write. Raises what kept it from being written."""
        ended = self.writer.ended()
        if ended is not None:
            self._note(ended)
            if ended.error is not None:
                raise ended.error

    def free(self) -> None:
        """Gives the memory of the copy back."""
        self._buffers = HostBuffer(), HostBuffer()

    def _heed(self, ended: Ended) -> None:
        if ended.error is not None:
            if self._raises or ended.fatal:
                raise ended.error
            tell_failure(ended, self._keeping)

    def _note(self, ended: Ended) -> None:
        self.record.note_ended(ended)
        tell_remarks(ended)
