"""A progress bar for each epoch."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any, TextIO

from tqdm import tqdm

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, RemovableEventHandle
from leyden.engine.values import NEVER
from leyden.handlers.loggers.arguments import check_what_is_shown, iterations_between
from leyden.handlers.loggers.values import MetricChoice, metric_scalars, output_scalars
from leyden.handlers.monitoring.pace import Pace
from leyden.handlers.monitoring.stream import TextStream
from leyden.metrics import OutputTransform

ON_TERMINAL = 0.1  # seconds between two refreshes
IN_FILE = 60.0


def notebook_bars() -> type[tqdm[Any]]:
    """tqdm's bars for notebooks, or those for terminals where ipywidgets is not installed."""
    from tqdm.auto import tqdm as bars

    return bars


class ProgressBar:
    """Shows a bar for each epoch, with the output and the metrics: `Epoch 3/20:  45%|####  | 12/27 [.., loss=0.123]`.

    It is drawn anew ten times a second, or, with `every`, each `every` iterations; only then are values copied from the
    device. `metrics`: "all" (but those of many classes), a list of names, or None. `output_transform`: from the output
    to a scalar or a mapping of scalars; an output that is one already is shown without. `desc`: what stands before the
    epoch's number. `persist`: the bar of an epoch stays, with the metrics of its end; None: unless it stands within
    another bar. `file`: by default stderr, as it is when the run starts; in a notebook, one of its own bars.

    Where the file is no terminal (a log), plain lines are written instead: one at the end of each epoch, and one a
    minute, or each `every` iterations, in between. Where nothing can be written (no stderr, a closed pipe, a full
    disk) the training goes on without it; that is told once. Rank 0 alone shows anything.

    Raises TypeError or ValueError for what can't be meant by its arguments.
    """

    refuses_second_engine = True

    def __init__(
        self,
        every: int | None = None,
        metrics: MetricChoice = "all",
        output_transform: OutputTransform | None = None,
        desc: str | None = None,
        persist: bool | None = None,
        file: TextIO | None = None,
    ) -> None:
        who = type(self).__name__
        check_what_is_shown(who, metrics, output_transform)
        if desc is not None and not isinstance(desc, str):
            raise TypeError(f"{who}(desc=) takes text, but got {desc!r}")
        if file is not None and not hasattr(file, "write"):
            raise TypeError(f"{who}(file=) takes an open text file, but got {file!r}")
        self.every = iterations_between(who, every)
        self.metrics = metrics
        self.output_transform = output_transform
        self.desc = desc
        self.persist = persist
        self.file = file
        self._out = TextStream(None)
        self._told = False
        self._live = False
        self._pace = Pace(IN_FILE)
        self._engine: Engine[Any, Any] | None = None
        self._handle: RemovableEventHandle | None = None
        self._bar: tqdm[Any] | None = None
        self._epoch_open = False
        self._opened_at = 0.0
        self._first = 0  # iterations of this epoch that were done before the bar was opened

    def attach(self, engine: Engine[Any, Any]) -> None:
        """Raises ValueError if it is attached to an engine already."""
        if self._engine is not None:
            raise ValueError("this ProgressBar shows another engine already; give each engine a ProgressBar of its own")
        self._engine = engine
        if self.metrics is not None and self.metrics != "all":
            engine.add_event_handler(Events.STARTED, self._check_metrics)
        if dist.rank() != 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        step = Events.ITERATION_COMPLETED if self.every is None else Events.ITERATION_COMPLETED(every=self.every)
        self._handle = engine.add_event_handler(step, self._step, order=Order.SAVERS)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._close_epoch, order=Order.SAVERS)
        engine.add_event_handler(Events.CLOSED, self._close)

    def _check_metrics(self, engine: Engine[Any, Any]) -> None:
        for name in self.metrics or ():
            engine.require_metric(name, type(self).__name__)

    def _start(self, engine: Engine[Any, Any]) -> None:
        self._out = TextStream(sys.stderr if self.file is None else self.file)
        # A notebook's stream is no terminal, but draws like one.
        self._live = self._out.isatty() or self._out.in_notebook
        self._pace = Pace(ON_TERMINAL if self._live else IN_FILE)
        if engine.cursor.epoch_open:  # the run goes on in mid-epoch, where no epoch starts
            self._open(engine)

    def _open(self, engine: Engine[Any, Any]) -> None:
        self._first = self._done(engine)
        self._opened_at = time.monotonic()
        self._epoch_open = True
        self._pace.begin(engine.state.iteration)
        if self._live and self._out.is_open:
            self._bar = self._make_bar(engine)
            self._tell()

    def _make_bar(self, engine: Engine[Any, Any]) -> tqdm[Any]:
        in_notebook = self._out.in_notebook and self.file is None
        bar = (notebook_bars() if in_notebook else tqdm)(
            desc=self._title(engine),
            total=self._total(engine),
            initial=self._first,
            file=None if in_notebook else self._out,
            dynamic_ncols=True,
            mininterval=0,
            miniters=1,
        )
        bar.leave = bar.pos == 0 if self.persist is None else self.persist
        return bar

    def _step(self, engine: Engine[Any, Any]) -> None:
        assert self._handle is not None
        if not self._out.is_open:
            self._handle.defer_until(NEVER)
            return
        if self.every is not None:
            self._show(engine)
            return
        if self._pace.is_time():
            self._show(engine)
        iteration = engine.state.iteration
        self._handle.defer_until(iteration + self._pace.steps(iteration))

    def _show(self, engine: Engine[Any, Any]) -> None:
        if not self._out.is_open:
            return
        metrics = metric_scalars(engine, self.metrics)
        values = output_scalars(engine, self.output_transform) | metrics
        self._draw(engine, ", ".join(f"{name}={number:.4g}" for name, number in values.items()))

    def _draw(self, engine: Engine[Any, Any], text: str) -> None:
        done = self._done(engine)
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            if not self._bar.update(done - self._bar.n):
                self._bar.refresh()
            self._tell()
            return
        line = tqdm.format_meter(
            done,
            self._total(engine),  # type: ignore[arg-type]  # None is what tqdm itself gives it for unknown
            max(time.monotonic() - self._opened_at, 1e-6),
            ncols=0,
            prefix=self._title(engine),
            initial=self._first,
            postfix=text,
        )
        self._out.write(f"{line}\n")
        self._out.flush()
        self._tell()

    def _tell(self) -> None:
        """Warns once, with the reason why nothing is shown."""
        failure = self._out.failure
        if failure is not None and not self._told:
            self._told = True
            reason = f"{type(failure).__name__}: {failure}"
            warnings.warn(f"ProgressBar no longer shows anything ({reason}); the training goes on", stacklevel=2)

    def _close_epoch(self, engine: Engine[Any, Any]) -> None:
        self._show(engine)
        self._shut()

    def _close(self, engine: Engine[Any, Any]) -> None:
        """After an interrupt or an error in mid-epoch: how far it came stays to be seen; no value is read any more."""
        if not self._epoch_open:
            return
        if self._bar is not None:
            self._bar.leave = True
        self._draw(engine, "stopped")
        self._shut()

    def _shut(self) -> None:
        self._epoch_open = False
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _title(self, engine: Engine[Any, Any]) -> str:
        name = self.desc if self.desc is not None else "Epoch" if engine.training else "Evaluation"
        state = engine.state
        if not engine.training and state.max_epochs == 1:
            return name
        return f"{name} {state.epoch}" + (f"/{state.max_epochs}" if state.max_epochs is not None else "")

    def _done(self, engine: Engine[Any, Any]) -> int:
        return engine.state.iteration - engine.cursor.epoch_start

    def _total(self, engine: Engine[Any, Any]) -> int | None:
        state = engine.state
        left = None if state.max_iters is None else state.max_iters - engine.cursor.epoch_start
        if state.epoch_length is None or left is None:
            return state.epoch_length
        return min(state.epoch_length, left)
