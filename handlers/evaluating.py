"""An evaluation in the course of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from leyden.engine import Engine, Events, EventsList, FilteredEvent, Order, Stage
from leyden.engine.events import EventEnum


@runtime_checkable
class ConcernsEvaluators(Protocol):
    """A handler of a trainer that also concerns the evaluators it runs: dealing data to ranks, autocast, device
    transfer.
    """

    def attach_to_evaluator(self, engine: Any) -> None: ...


class Evaluate:
    """Runs an evaluator over `data` after each `every`-th epoch and brings its metrics into the trainer's, under
    `prefix`.

    `on`: another event of the trainer to run at (`Events.ITERATION_COMPLETED(every=500)`). `epoch_length`: batches to
    evaluate, if not all. Handlers of the trainer that concern every engine of a run (DataParallel, MixedPrecision)
    reach the evaluator too. Of the handlers of one event evaluation runs early (order -5), so that stoppers and loggers
    see the new values.

    Raises ValueError if both `every` and `on` are given, or if the evaluator is the trainer itself.
    """

    def __init__(
        self,
        evaluator: Engine[Any, Any],
        data: Iterable[Any],
        *,
        prefix: str = "",
        every: int | None = None,
        on: EventEnum | FilteredEvent | EventsList | None = None,
        epoch_length: int | None = None,
    ) -> None:
        if not isinstance(evaluator, Engine):
            raise TypeError(f"Evaluate needs an engine that evaluates, but got {evaluator!r}")
        if every is not None and on is not None:
            raise ValueError(f"Evaluate takes every= (epochs) or on= (an event), but got every={every} and on={on}")
        self.evaluator = evaluator
        self.data = data
        self.prefix = prefix
        self._event = on if on is not None else Events.EPOCH_COMPLETED(every=1 if every is None else every)
        self._epoch_length = epoch_length
        self._reached: set[int] = set()

    def attach(self, engine: Engine[Any, Any]) -> None:
        if engine is self.evaluator:
            raise ValueError("Evaluate was given the trainer itself as its evaluator; make an engine of its own for it")
        engine.declare_metrics(lambda: [self.prefix + name for name in self.evaluator.metric_names()])
        engine.setup.add(Stage.DATA, lambda: self._pass_on(engine), each_run=True)
        engine.add_event_handler(self._event, self.evaluate, order=Order.EVALUATION)

    def evaluate(self, engine: Engine[Any, Any]) -> None:
        """Runs the evaluator now."""
        metrics = self.evaluator.run(self.data, max_epochs=1, epoch_length=self._epoch_length).metrics
        for name in metrics:
            engine.state.metrics[self.prefix + name] = metrics[name]

    def _pass_on(self, engine: Engine[Any, Any]) -> None:
        # Two evaluations may share one evaluator: the first of them keeps the list for both.
        reached = next(each for each in engine.find_handlers(Evaluate) if each.evaluator is self.evaluator)._reached
        for handler in engine.handlers.values():
            if isinstance(handler, ConcernsEvaluators) and id(handler) not in reached:
                reached.add(id(handler))
                handler.attach_to_evaluator(self.evaluator)
