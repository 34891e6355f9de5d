"""What all loggers share: what is logged when, and how it gets to the backend without holding up the training."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order
from leyden.handlers.loggers.arguments import check_what_is_shown, iterations_between, parameters, seconds
from leyden.handlers.loggers.deliveries import Deliveries, send_at_once
from leyden.handlers.loggers.entries import Ending, Image, LogEntry, Value, ending_by, entries_of, to_state
from leyden.handlers.loggers.hyperparameters import flatten, hyperparameters, hyperparameters_of_optimizers
from leyden.handlers.loggers.images import check_image, to_pixels
from leyden.handlers.loggers.points import Points
from leyden.handlers.loggers.troubles import Troubles
from leyden.handlers.loggers.values import MetricChoice, scalars
from leyden.metrics import OutputTransform


class Logger(ABC):
    """Logs a run's parameters and curves; the base of all loggers.

    Where a run starts: `params`, and what is found out about the engine; `params` win.
    Every `every` iterations (never, if None): the mean, over the iterations since, of the output, if it is a scalar
    ("train/loss") or a mapping of scalars ("train/<key>"), or of what `output_transform` makes of it in each iteration;
    the learning rates ("train/lr"). What is left at the end of the run has a mean of its own. There, and at the end of
    each epoch: the metrics that have a new value (`metrics`: "all", a list of names, or None), "train/epoch". A metric
    whose name has no group is logged in the group "train", or "val" if an evaluation brought it; one that has the name
    of a number of the output, as "train/loss_metric". Everything stands against `state.iteration`.

    Rank 0 alone logs, and sees the output of its own rank. Between two logging points that output is added up where it
    is; nothing is copied from the device. Sending happens beside the training: what can't be delivered is told once,
    kept and tried again, at the end of the run for `patience` seconds more; what the backend will never take is told
    and left out. An error at the start of a run, where the backend is opened, is raised, and ends the backend's run.

    What is logged at a moment is logged before a checkpoint of it is made, and what the backend does not have yet is in
    the checkpoint (`state_dict`): whenever the process is killed, the run that goes on from there delivers it.

    A run that is continued, in this process or from a checkpoint, goes on in its place; one that starts from the
    beginning has a new one.
    """

    shared_out = "first"

    refuses_second_engine = True

    def __init__(
        self,
        *,
        every: int | None = 50,
        metrics: MetricChoice = "all",
        output_transform: OutputTransform | None = None,
        learning_rates: bool = True,
        params: Mapping[str, Any] | None = None,
        patience: float = 30.0,
    ) -> None:
        who = type(self).__name__
        check_what_is_shown(who, metrics, output_transform)
        self.every = iterations_between(who, every)
        self.metrics = metrics
        self._points = Points(self.every, metrics, output_transform, learning_rates)
        self.params = parameters(who, params)
        self.patience = seconds(who, patience)
        self._engine: Engine[Any, Any] | None = None
        self._options: dict[str, dict[str, Any]] = {}  # of the optimizers, as the script has them
        self._delivery: Deliveries | None = None
        self._early: list[LogEntry] = []  # logged before the first run
        self._undelivered: list[LogEntry] = []  # of a run that may go on
        self._opened = False
        self._may_repeat = True  # the next run to be opened may have points already that come again
        self._muted = False
        self._logged: dict[str, str] = {}  # parameters, by the backend's names
        self.told_misplaced = False
        self._troubles = Troubles(self._warn, self._place)
        self._ending = Ending.FINISHED
        self._error: BaseException | None = None

    # -- what a backend does -----------------------------------------------------------------------------------------

    @abstractmethod
    def _open(self, engine: Engine[Any, Any], continues: bool) -> dict[str, str]:
        """Opens the backend and returns the parameters it has already; `continues`: the run goes on where it was logged
        before.
        """

    @abstractmethod
    def _write(self, values: list[Value]) -> None:
        """Writes values so that they survive the death of the process. May raise, and is then called with the same
        values again. Runs in another thread while the engine runs.
        """

    @abstractmethod
    def _write_params(self, params: dict[str, str]) -> None:
        """Writes parameters; like `_write`."""

    def _write_image(self, image: Image) -> None:
        """Writes an image; like `_write`, in a thread of its own. A backend without it takes none."""
        raise NotImplementedError

    @abstractmethod
    def _close(self, ending: Ending | None, error: BaseException | None) -> None:
        """Closes the backend; `ending` is None after a value was logged outside of a run. May be called again."""

    def _clean(self, name: str) -> str:
        """The name in a form that the backend accepts; different names stay different."""
        return name

    def _clean_of_image(self, name: str) -> str:
        """The same for the name of an image."""
        return name

    def _is_refusal(self, error: Exception) -> bool:
        """True if the backend will never accept these values, however often they are sent."""
        return isinstance(error, TypeError | ValueError | ImportError) and not isinstance(error, OSError)

    @abstractmethod
    def _place(self) -> str:
        """Where the values go, for messages."""

    # -- for a user's own handlers -----------------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Logs numbers or scalar tensors, or nested mappings of them, at a step (`engine.state.iteration`, say).

        Before the first run they wait for its start; after a run they are written at once. Raises TypeError for others.
        """
        now, step = time.time(), int(step)
        values = []
        for name, metric in metrics.items():
            numbers = scalars(metric, name)
            if not numbers:
                kind = type(metric).__name__
                raise TypeError(f"log_metrics takes numbers and scalar tensors, but {name!r} is a {kind}: {metric!r}")
            values += [Value(key, number, step, now) for key, number in numbers.items()]
        self._put(values)

    def log_image(self, name: str, image: Any, step: int) -> None:
        """Logs an image at a step: a tensor or array (H, W), (C, H, W) or (H, W, C), or an image of PIL; a batch
        (N, C, H, W) or (N, H, W, C) becomes a grid, in rows of up to 8. C is 1 (grey), 3 (RGB) or 4 (RGBA); where first
        and last both could be C, it is the first. Floats are of 0 to 1, and cut there with a warning; uint8 of 0 to
        255; bool.

        Rank 0 logs, and waits for its device; the rest is done beside the training, and an image store that is away
        holds up no values. Images that have not arrived are in the checkpoint, without compression; while the store is
        away no more than 64 MiB are kept, and what comes then is left out, with a warning.

        Raises TypeError and ValueError on all ranks for what is no image; ValueError for NaN; NotImplementedError for a
        logger that takes no images; ModuleNotFoundError without pillow.
        """
        if type(self)._write_image is Logger._write_image:
            raise NotImplementedError(f"{type(self).__name__} takes no images; one that does defines _write_image")
        image = check_image(name, image)
        step = int(step)
        if dist.rank() != 0:
            return
        pixels, beyond = to_pixels(name, image)
        if beyond is not None:
            self._troubles.tell_cut(name, *beyond)
        self._put([Image(name, pixels, step, time.time())])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters, also nested ones (as `outer/inner`).

        One that is there with another value stays as it is; a warning says so.
        """
        if self._opened:
            self._put(list(self._new_params(flatten(params)).items()))
        else:
            self.params |= params

    # -- the engine --------------------------------------------------------------------------------------------------

    def attach(self, engine: Engine[Any, Any]) -> None:
        """Raises ValueError if it is attached to an engine already."""
        if self._engine is not None:
            raise ValueError(
                f"this {type(self).__name__} logs another engine already. Evaluate(evaluator, data, prefix=...) brings "
                "an evaluator's metrics into the trainer, where they are logged; log_metrics() logs any other value"
            )
        self._options = hyperparameters_of_optimizers(engine)
        if self.metrics is not None and self.metrics != "all":
            engine.add_event_handler(Events.STARTED, self._check_metrics, order=Order.LOG_START)
        if dist.rank() == 0:
            engine.add_event_handler(Events.STARTED, self._begin, order=Order.LOG_START)
            engine.add_event_handler(Events.STARTED, self._log_start, order=Order.LOGGERS)
            if self.every is not None:
                engine.add_event_handler(Events.ITERATION_COMPLETED, self._points.observe, order=Order.METRICS)
                point = Events.ITERATION_COMPLETED(every=self.every)
                engine.add_event_handler(point, self._log_iteration, order=Order.LOGGERS)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._log_epoch, order=Order.LOGGERS)
            engine.add_event_handler(Events.COMPLETED, self._log_end, order=Order.LOGGERS)
            engine.add_event_handler(Events.INTERRUPT, self._note_interrupt)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._note_exception)
            engine.add_event_handler(Events.CLOSED, self._end, order=Order.SAVERS)
        self._engine = engine

    def on_evaluator(self) -> str:
        return (
            "it begins a run of its own with each, and logs against the evaluator's own iterations. Attach it to the "
            "trainer, where it logs the metrics that Evaluate brings against the trainer's"
        )

    def state_dict(self) -> dict[str, Any]:
        """What was logged but may not have reached the backend. Does not wait."""
        waiting = self._undelivered if self._delivery is None else self._delivery.waiting
        return {"waiting": to_state(waiting)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._undelivered = entries_of(state_dict.get("waiting", {})) if dist.rank() == 0 else []
        self._may_repeat = True

    def rank_state_dict(self) -> dict[str, Any]:
        """What is not logged yet: the mean since the last point, and which metrics are new. Rank 0 alone has it."""
        return self._points.state_dict() if dist.rank() == 0 else {}

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Goes on with that mean at the next point."""
        if dist.rank() == 0:
            self._points.load_state_dict(states[0] or {})

    def mute(self) -> None:
        """From the next run on no backend is opened, and what is logged goes nowhere: a dry run."""
        self._muted = True

    def _check_metrics(self, engine: Engine[Any, Any]) -> None:
        for name in self.metrics or ():
            engine.require_metric(name, type(self).__name__)

    def _begin(self, engine: Engine[Any, Any]) -> None:
        self._ending, self._error = Ending.FINISHED, None
        self._troubles.begin()
        unlogged = self._points.begin(engine)
        if self._muted:
            return
        continues = not self._opened or engine.state.iteration > 0
        try:
            self._logged = dict(self._open(engine, continues))
            self._opened, self._may_repeat = True, False
            params = self._new_params(flatten(hyperparameters(engine, self._options) | self.params))
            self._send_now(list(params.items()))
        except BaseException as error:
            self._close_after(error)
            raise
        self._delivery = Deliveries(self._send, self._write_image, self._is_refusal)
        self._delivery.put([*(self._undelivered if continues else ()), *self._early])
        self._undelivered, self._early = [], []
        self._log(engine, unlogged)

    def _close_after(self, error: BaseException) -> None:
        """Nothing will be logged: if the backend has begun a run, it ends here."""
        try:
            self._close(ending_by(error), error)
        except Exception as failure:
            error.add_note(f"then the run in {self._place()} could not be ended: {type(failure).__name__}: {failure}")

    def _log_start(self, engine: Engine[Any, Any]) -> None:
        self._log(engine, self._points.at_start(engine))

    def _log_iteration(self, engine: Engine[Any, Any]) -> None:
        self._log(engine, self._points.at_iteration(engine))

    def _log_epoch(self, engine: Engine[Any, Any]) -> None:
        self._log(engine, self._points.at_epoch(engine))

    def _log_end(self, engine: Engine[Any, Any]) -> None:
        self._log(engine, self._points.at_end(engine))

    def _log(self, engine: Engine[Any, Any], numbers: dict[str, float]) -> None:
        now = time.time()
        self._put([Value(name, number, engine.state.iteration, now) for name, number in numbers.items()])

    def _note_interrupt(self) -> None:
        self._ending = Ending.STOPPED

    def _note_exception(self, engine: Engine[Any, Any], error: BaseException) -> None:
        self._ending, self._error = ending_by(error), error

    def _end(self) -> None:
        delivery, self._delivery = self._delivery, None
        if delivery is None:
            return
        last = partial(self._close, self._ending, self._error)
        lost = delivery.close(last, self.patience)
        self._troubles.tell_refused(delivery.take_refused())
        self._undelivered = delivery.waiting
        self._troubles.tell_lost(lost, self._undelivered, self.patience)
        if delivery.end_refused is not None:
            self._warn(f"the end of the run was refused by {self._place()}: {delivery.end_refused}")

    # -- the way to the backend --------------------------------------------------------------------------------------

    def _put(self, entries: Sequence[LogEntry]) -> None:
        if dist.rank() != 0 or self._muted or not entries:
            return
        entries = [self._renamed(entry) for entry in entries]
        if self._delivery is not None:
            self._troubles.tell_left_out(self._delivery.put(entries))
            self._troubles.tell_refused(self._delivery.take_refused())
            self._troubles.tell_failures(self._delivery.failures)
        elif self._opened:
            self._send_now(entries)
            self._close(None, None)
        else:
            self._early += entries  # parameters wait in `params`

    def _renamed(self, entry: LogEntry) -> LogEntry:
        if isinstance(entry, tuple):
            return entry  # a parameter has its name by `_new_params`
        name = self._clean_of_image(entry.name) if isinstance(entry, Image) else self._clean(entry.name)
        return entry if name == entry.name else replace(entry, name=name)

    def _send(self, entries: list[LogEntry]) -> None:
        values = [entry for entry in entries if isinstance(entry, Value)]
        params = dict(entry for entry in entries if isinstance(entry, tuple))
        if params:
            self._write_params(params)
        if values:
            self._write(values)

    def _send_now(self, entries: list[LogEntry]) -> None:
        """Sends in this thread; raises what the backend raises, unless it refuses an entry."""
        self._troubles.tell_refused(send_at_once(entries, self._send, self._write_image, self._is_refusal))

    def _new_params(self, params: dict[str, str]) -> dict[str, str]:
        """The parameters that are not logged yet; warns of those that differ from what was logged."""
        clean = {self._clean(name): text for name, text in params.items()}
        new = {name: text for name, text in clean.items() if name not in self._logged}
        differing = [
            f"{name} (logged: {self._logged[name]}, now: {text})"
            for name, text in clean.items()
            if name not in new and self._logged[name] != text
        ]
        if differing and dist.rank() == 0:
            self._warn(f"parameters that the run has already keep their first value: {'; '.join(differing)}")
        self._logged |= new
        return new

    def _warn(self, message: str) -> None:
        warnings.warn(f"{type(self).__name__}: {message}", stacklevel=3)
