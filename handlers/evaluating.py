"""An evaluation in the course of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from leyden import distributed as dist
from leyden.engine import Engine, Events, EventsList, FilteredEvent, Order, Stage, attached_lines
from leyden.engine.data import Feed, parts_state, set_parts_state
from leyden.engine.evaluation import ModeCheck
from leyden.engine.events import EventEnum, events_in, without_filter
from leyden.engine.resume import GOES_ON_AT
from leyden.engine.values import MetricWatch, whole_number
from leyden.handlers.common.misplaced import tell_misplaced
from leyden.handlers.common.other_models import tell_other_model
from leyden.metrics import MetricGroup


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

    An interrupt of the trainer stops the evaluator after its running iteration, and the trainer with it; a checkpoint
    of that moment (or `engine.state_dict()`) has both, and the next run goes on in the midst of the evaluation. That
    holds at the ends of iterations and epochs and where a run or an epoch starts or ends; at other events (of an
    Update, say) the evaluation is finished first.

    Raises TypeError or ValueError for arguments that can't be meant and if the evaluator is the trainer itself; when it
    is attached or a run starts, ValueError for a name that two of them, or the trainer's own metrics, would write to.
    """

    told_apart_by = ("prefix",)
    shared_out = "first"
    settings = ("event",)

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
        if not isinstance(prefix, str):
            raise TypeError(
                f'Evaluate(prefix=) takes text before the names of its metrics ("val/"), but got {prefix!r}'
            )
        if epoch_length is not None:
            epoch_length = whole_number("Evaluate(epoch_length=)", epoch_length, 1)
        if every is not None and on is not None:
            raise ValueError(f"Evaluate takes every= (epochs) or on= (an event), but got every={every} and on={on}")
        self.evaluator = evaluator
        self.data = data
        self.prefix = prefix
        self._event = on if on is not None else Events.EPOCH_COMPLETED(every=1 if every is None else every)
        self._epoch_length = epoch_length
        self._reached: set[int] = set()
        self._open: str | None = None  # the event at which an evaluation was stopped halfway
        self._waiting: dict[str, Any] | None = None  # the evaluator's state of then, if it does not hold it itself
        self._state_of_data: Callable[[], dict[str, Any]] | None = None  # since the last evaluation in this process
        self._between: dict[str, Any] | None = None  # the same, of a run that was restored
        self._told = False
        self.after: list[Callable[[], None]] = []
        """Called once an evaluation has brought its metrics."""
        self._watch = MetricWatch()  # knows the evaluator's metrics as they were before the evaluation

    @property
    def same_on_ranks(self) -> dict[str, Any]:
        """See `leyden.engine.AlikeOnRanks`. The data may be each rank's own."""
        return {"prefix": self.prefix, "event": self.event, "evaluator": sorted(attached_lines(self.evaluator))}

    def attach(self, engine: Engine[Any, Any]) -> None:
        if engine is self.evaluator:
            raise ValueError("Evaluate was given the trainer itself as its evaluator; make an engine of its own for it")
        self._check_names(engine)
        if self.evaluator.training and not self.evaluator.updates:  # made as any engine is
            self.evaluator.mode_check = self.evaluator.mode_check or ModeCheck(self.evaluator.process)
        engine.declare_metrics(self.names)
        engine.setup.add(Stage.DEVICE, lambda: self._check_names(engine), each_run=True)
        engine.setup.add(Stage.DATA, lambda: self._pass_on(engine), each_run=True)
        for part in events_in(self._event):
            key = without_filter(part)
            if key in GOES_ON_AT:
                engine.add_event_handler(part, self.evaluate_at, key, order=Order.EVALUATION)
            else:
                engine.add_event_handler(part, self.evaluate, order=Order.EVALUATION)

    def _check_names(self, engine: Engine[Any, Any]) -> None:
        """Raises ValueError if another evaluation, or the trainer, writes the metrics that this one brings. The same
        evaluation at two events may.
        """
        mine = set(self.names())
        for other in engine.find_handlers(Evaluate):
            same = other.evaluator is self.evaluator and other.data is self.data
            if other is not self and not same and (names := mine.intersection(other.names())):
                raise ValueError(
                    f"two Evaluates, with the prefixes {other.prefix!r} and {self.prefix!r}, bring {_quoted(names)}; "
                    "one would overwrite the other. Give each a prefix= of its own"
                )
        for group in engine.find_handlers(MetricGroup):
            if names := mine.intersection(group.names()):
                raise ValueError(
                    f"Evaluate brings {_quoted(names)}, and the trainer measures that itself; one would overwrite the "
                    f'other. Give Evaluate another prefix= ("val/"; it has {self.prefix!r})'
                )

    def evaluate(self, engine: Engine[Any, Any]) -> None:
        """Runs the evaluator now, from its beginning to its end, and brings what it measured."""
        self.evaluator.state.max_epochs = self.evaluator.state.max_iters = None
        self._watch.catch_up(self.evaluator.state.metrics)
        self._finish(engine)

    def _finish(self, engine: Engine[Any, Any]) -> None:
        data = self.evaluator.run_data
        if self._between is not None:
            data.begin_like(self._between)
            self._between = None
        metrics = self.evaluator.run(self.data, max_epochs=1, epoch_length=self._epoch_length).metrics
        if self.evaluator.interrupted:
            return
        self._state_of_data = data.between_passes()
        # What it did not measure this time is of an earlier evaluation, perhaps of other data.
        for name in self._watch.new(metrics):
            engine.state.metrics[self.prefix + name] = metrics[name]
        for call in self.after:
            call()

    def evaluate_at(self, engine: Engine[Any, Any], event: Events) -> None:
        """Runs the evaluator as a handler of this event, or what is left of an evaluation that was stopped there."""
        if self._open is None:
            # A run that goes on evaluates once more at its start, of which later evaluations are to see nothing.
            again = event is Events.STARTED and engine.state.iteration > 0
            parts = parts_state(self.data) if again else {}
            self._run_at(engine, event, self.evaluate)
            set_parts_state(self.data, parts)
        elif self._open != event.name:  # the evaluation that was stopped comes later, at its own event
            opened, waiting, seen = self._open, self._waiting or self.evaluator.state_dict(), self._watch.state_dict()
            self._run_at(engine, event, self.evaluate)
            self._open, self._waiting = opened, waiting
            self._watch.load_state_dict(seen)
        elif engine.resumed_at is event:
            if self._waiting is not None:
                self.evaluator.load_state_dict(self._waiting)
            self._run_at(engine, event, self._finish)
        else:
            self._run_at(engine, event, self.evaluate)

    def _run_at(self, engine: Engine[Any, Any], event: Events, run: Callable[[Engine[Any, Any]], None]) -> None:
        self._open, self._waiting = event.name, None
        with engine.hosting(self.evaluator):
            run(engine)
        self._open = None

    def names(self) -> list[str]:
        """The metrics that it brings, by their names in the trainer's state."""
        return [self.prefix + name for name in self.evaluator.metric_names()]

    @property
    def event(self) -> str:
        """What it runs at, in words."""
        return str(self._event)

    def awaited(self) -> list[str]:
        """The metrics that an evaluation stopped halfway has not brought yet."""
        return [] if self._open is None else self.names()

    def state_dict(self) -> dict[str, Any]:
        """The states of the evaluator's own handlers."""
        return self.evaluator.handler_states()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluator.load_handler_states(state_dict)

    def rank_state_dict(self) -> dict[str, Any]:
        """The evaluator, where an evaluation was stopped halfway: each rank has come as far as its own data go. Else
        what the next evaluation begins its data from: generators of their own, workers that stay, a loader's own state.
        """
        if self._open is None:
            if self._between is not None:
                return {"pass": self._between}
            if self._state_of_data is not None:
                return {"pass": self._state_of_data()}
            return {"data": parts} if (parts := parts_state(self.data)) else {}
        evaluator = self._waiting or self.evaluator.state_dict()
        return {"event": self._open, "evaluator": evaluator, "seen": self._watch.state_dict()}

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Continues that evaluation. With another number of ranks it begins anew, since its data are then dealt
        differently.
        """
        self._open = self._waiting = self._between = None
        same = len(states) == dist.data_size()
        saved = states[dist.data_rank()] if same else states[0]
        if "pass" in saved:
            # A loader's own state is that of another rank's share, where their number has changed.
            self._between = saved["pass"] if same else {k: v for k, v in saved["pass"].items() if k != "loader"}
        elif "data" in saved:
            set_parts_state(self.data, saved["data"])
        elif saved and same:
            self._open, self._waiting = saved["event"], saved["evaluator"]
            self._watch.load_state_dict(saved.get("seen", {}))

    def _pass_on(self, engine: Engine[Any, Any]) -> None:
        # Two evaluations may share one evaluator: the first of them keeps the list for both.
        reached = next(each for each in engine.find_handlers(Evaluate) if each.evaluator is self.evaluator)._reached
        for handler in engine.handlers.values():
            if isinstance(handler, ConcernsEvaluators) and id(handler) not in reached:
                reached.add(id(handler))
                handler.attach_to_evaluator(self.evaluator)
        tell_misplaced(self.evaluator, self.prefix)
        self._check_models(engine)
        self._check_data()

    def _check_models(self, engine: Engine[Any, Any]) -> None:
        if not self._told:
            evaluators = [each.evaluator for each in engine.find_handlers(Evaluate)]
            self._told = tell_other_model(engine, self.evaluator, evaluators, self.prefix)

    def _check_data(self) -> None:
        """Raises, before training begins, what the first evaluation would raise about its data."""
        if self.data is None and self._epoch_length is None:
            raise ValueError(
                f"Evaluate(prefix={self.prefix!r}) has no data, so nothing says how many batches to evaluate; give it "
                "data, or an epoch_length for an evaluator that needs none"
            )
        try:
            Feed(self.data, may_be_empty=self.evaluator.data_setup.may_give_none)
        except (TypeError, ValueError) as error:
            error.add_note(f"this is the data of Evaluate(prefix={self.prefix!r}), looked at before training")
            raise


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
