"""What a run knows of its saves: which moment is saved, which metrics were new in it, and what a failed one leaves."""

from __future__ import annotations

from typing import Any

from leyden.engine import Engine
from leyden.engine.values import MetricWatch
from leyden.handlers.checkpoint.save_points import Moment
from leyden.handlers.checkpoint.saving.writer import Ended
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.evaluating import Evaluate


class SaveRecord:
    """The same on all ranks, as each takes part in every save and learns how it ended."""

    def __init__(self) -> None:
        self.has_one = False
        """There is a checkpoint to go on from."""
        self.failure: Exception | None = None
        """What the last save failed by."""
        self._path: StoragePath | None = None
        self._moment: Moment | None = None
        self._step = 0  # optimizer steps: an epoch's end may make one more with what an open window holds
        self._watch = MetricWatch()
        self._new_metrics: list[str] = []
        self._lost: tuple[Moment | None, list[str]] | None = None  # moment and new metrics of one that failed

    def begin_run(self, engine: Engine[Any, Any]) -> None:
        """Forgets an earlier run, if this one is from the beginning."""
        self.failure = None
        if engine.state.iteration == 0:
            self._path = self._moment = self._lost = None
            self.has_one = False

    def has(self, engine: Engine[Any, Any]) -> bool:
        """True if this very moment is saved, or being saved."""
        return self._moment == Moment.of(engine)

    def new_metrics(self, engine: Engine[Any, Any]) -> list[str]:
        """Names of metrics that no checkpoint has with the value that they have now, which is of the weights of now.

        A metric of weights that a step has changed since is not among them, nor one of an evaluation that was stopped
        halfway: what is there is of one before.
        """
        awaited = {name for each in engine.find_handlers(Evaluate) for name in each.awaited()}
        metrics = engine.state.metrics
        new = [name for name in self._watch.new(metrics) if name not in awaited and metrics.is_of_now(name)]
        if self._lost is not None and self._lost[0] == Moment.of(engine):  # tried again
            new = sorted({*new, *self._lost[1]})
        return new

    def superseded(self, engine: Engine[Any, Any]) -> StoragePath | None:
        """The checkpoint of this iteration and weights, made when fewer handlers had run, which a new one replaces."""
        same = self._moment is not None and Moment.of(engine).repeats(self._moment)
        return self._path if same and self._step == engine.state.step else None

    def note_begun(self, engine: Engine[Any, Any], path: StoragePath, new_metrics: list[str]) -> None:
        self._path, self._moment, self._new_metrics = path, Moment.of(engine), new_metrics
        self._step = engine.state.step
        self._watch.catch_up(engine.state.metrics)

    def note_resumed(self, engine: Engine[Any, Any], path: StoragePath) -> None:
        self.note_begun(engine, path, [])
        self.has_one = True

    def note_kept(self, engine: Engine[Any, Any]) -> None:
        """There are checkpoints of this run, which goes on from one in another directory."""
        self._watch.catch_up(engine.state.metrics)
        self.has_one = True

    def note_not_begun(self, engine: Engine[Any, Any], error: Exception) -> None:
        """A save came to nothing before anything was written."""
        self.failure = error
        self._lost = Moment.of(engine), self.new_metrics(engine)

    def note_ended(self, ended: Ended) -> None:
        self.failure = ended.error
        if ended.error is None:
            self.has_one, self._lost = True, None
        else:
            self._lost = self._moment, self._new_metrics
            self._path = self._moment = None
