"""Ignite's loggers: opened when the first handler logs, closed by the user; over leyden's."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from leyden import distributed as dist
from leyden import handlers
from leyden.contrib.ignite.handlers.log_handlers import OptimizerParamsHandler, OutputHandler
from leyden.engine import Engine, Events, RemovableEventHandle, UpdateEvents
from leyden.engine.events import FilteredEvent, events_in, without_filter
from leyden.handlers.loggers import Logger, make_new

LogHandler = Callable[[Engine[Any, Any], Any, Any], Any]

if TYPE_CHECKING:
    Base = Logger
else:
    Base = object


class EventLogger(Base):
    """Lets handlers log at events of any engines; closed by `close()`, at the end of a `with`, or of the process.

    Rank 0 alone logs; it is sent beside the training.
    """

    separator = "/"

    def attach(  # type: ignore[override]  # as Ignite's loggers are attached
        self, engine: Engine[Any, Any], log_handler: LogHandler | None = None, event_name: Any = None, *args: Any
    ) -> RemovableEventHandle:
        """Calls `log_handler(engine, logger, event, *args)` at the event, or at each of several.

        Raises TypeError without a handler: that is how leyden's own loggers are attached.
        """
        if log_handler is None or event_name is None:
            name = type(self).__name__
            raise TypeError(
                f"Ignite's {name} logs by handlers: attach(engine, log_handler, event_name), or "
                "attach_output_handler(engine, event_name, tag=...). leyden.handlers has loggers to attach as they are"
            )
        if dist.rank() != 0:
            return RemovableEventHandle([])
        handles = [self._listen(engine, log_handler, part, args) for part in events_in(event_name)]
        return RemovableEventHandle([place for handle in handles for place in handle._places])

    def _listen(
        self, engine: Engine[Any, Any], log_handler: LogHandler, event: Any, args: tuple[Any, ...]
    ) -> RemovableEventHandle:
        if getattr(log_handler, "of_gradients", False) and engine.updates:

            def log_gradients(engine: Engine[Any, Any]) -> None:
                if is_due(engine, event):
                    self._handle(engine, log_handler, event, args)

            return engine.add_event_handler(UpdateEvents.GRADIENTS_READY, log_gradients)
        return engine.add_event_handler(event, self._handle, log_handler, event, args)

    def _handle(
        self, engine: Engine[Any, Any], log_handler: LogHandler, event: Any, args: tuple[Any, ...] = ()
    ) -> None:
        if not self._opened:
            self._begin(engine)
            atexit.register(self.close)
        log_handler(engine, self, event, *args)

    def attach_output_handler(
        self, engine: Engine[Any, Any], event_name: Any, *args: Any, **kwargs: Any
    ) -> RemovableEventHandle:
        """Logs by an `OutputHandler` of these arguments."""
        return self.attach(engine, OutputHandler(*args, **kwargs), event_name)

    def attach_opt_params_handler(
        self, engine: Engine[Any, Any], event_name: Any, *args: Any, **kwargs: Any
    ) -> RemovableEventHandle:
        """Logs by an `OptimizerParamsHandler` of these arguments."""
        return self.attach(engine, OptimizerParamsHandler(*args, **kwargs), event_name)

    def close(self) -> None:
        """Delivers what is left and ends the run. What is logged later is written at once."""
        atexit.unregister(self.close)
        self._end()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._note_exception(None, error)  # type: ignore[arg-type]  # of no engine
        self.close()


def is_due(engine: Engine[Any, Any], event: Any) -> bool:
    """Within an iteration: whether the event will come at its end."""
    key = without_filter(event)
    if key in (Events.EPOCH_COMPLETED, Events.COMPLETED):
        due, count = engine.state.iteration == engine.last_iteration, engine.state.epoch
    else:
        due, count = True, engine.state.iteration
    return due and (not isinstance(event, FilteredEvent) or event.filter.admits(engine, count))


class TensorboardLogger(EventLogger, handlers.TensorBoardLogger):
    """Logs by handlers to event files in `log_dir`, or a new folder of `runs/`; `add_*` are the writer's own."""

    def __init__(self, log_dir: str | Path | None = None) -> None:
        handlers.TensorBoardLogger.__init__(self, log_dir, every=None, metrics=None, learning_rates=False)
        self._summary_writer: Any = None

    @property
    def writer(self) -> Any:
        """tensorboardX's writer, for images, histograms and graphs, with a file of its own beside the curves'."""
        if self._summary_writer is None:
            from tensorboardX import SummaryWriter

            self._summary_writer = SummaryWriter(str(self._folder()), filename_suffix=f".{time.time_ns()}")
            atexit.register(self.close)
        return self._summary_writer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("add_"):
            return getattr(self.writer, name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def close(self) -> None:
        super().close()
        if self._summary_writer is not None:
            self._summary_writer.close()
            self._summary_writer = None

    def _folder(self) -> Path:
        if self.log_dir is None:
            self.log_dir = make_new(Path("runs"))
        self.log_dir.mkdir(parents=True, exist_ok=True)
        return self.log_dir

    def _open(self, engine: Engine[Any, Any], continues: bool) -> dict[str, str]:
        self._folder()
        self._opened_file()  # which hides nothing, for the steps are what the user takes for them
        return {}


class MLflowLogger(EventLogger, handlers.MLflowLogger):
    """Logs by handlers to a run of MLflow: the server or database `tracking_uri`, else as `leyden.handlers` does."""

    separator = " "

    def __init__(self, tracking_uri: str | None = None) -> None:
        handlers.MLflowLogger.__init__(self, tracking_uri=tracking_uri, every=None, metrics=None, learning_rates=False)
