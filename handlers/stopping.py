"""Handlers that end a run before its limit."""

from __future__ import annotations

import cmath
import math
import threading
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from numbers import Complex, Integral, Real
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order
from leyden.engine.values import WatchedMetric, leaves_of, whole_number
from leyden.handlers.common.metric_modes import require_mode
from leyden.handlers.common.number_checks import require_function, require_number
from leyden.handlers.common.watched_metrics import watch_number


class EarlyStopping:
    """Terminates the run once a metric has not improved in `patience` evaluations.

    `metric`: its name in the trainer's `state.metrics`, or a function of the engine that gives a score. `mode`: "max"
    or "min", what better means; it can be left out where the name tells (val/loss, top5_accuracy;
    `leyden.handlers.common.metric_modes`). `min_delta`: only a larger change counts. An epoch that brought no
    new value (no evaluation) does not count. Rank 0 prints once why the run ended.

    Raises ValueError where nothing says the mode, for a bad mode or patience, and at the start of a run for a metric
    that will not come up.
    """

    told_apart_by = ("metric",)
    settings = ("mode", "patience", "min_delta")
    same_on_ranks = ("metric", *settings)
    told_misplaced = False

    def __init__(
        self,
        metric: str | Callable[[Engine[Any, Any]], float],
        *,
        mode: str | None = None,
        patience: int = 3,
        min_delta: float = 0.0,
    ) -> None:
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(
                f'EarlyStopping watches a metric, by its name ("val/loss"), or a function of the engine, but got '
                f"{metric!r}; say how long it waits by patience="
            )
        self.metric = metric
        self.mode = require_mode("EarlyStopping", metric, mode)
        self.patience = whole_number("a patience", patience, 1, who="EarlyStopping")
        self.min_delta = require_number("EarlyStopping", "a min_delta", min_delta, least=0)
        self.best: float | None = None
        self.waited = 0
        """Evaluations since the best one."""
        self._watch = WatchedMetric(metric) if isinstance(metric, str) else None
        self._restored = False
        self._ends_run = False

    def attach(self, engine: Engine[Any, Any]) -> None:
        if isinstance(self.metric, str):
            watch_number(engine, self.metric, "EarlyStopping")
        engine.add_event_handler(Events.STARTED, self.start, order=Order.METRICS)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check, order=Order.STOPPERS)
        engine.add_event_handler(Events.TERMINATE, self.tell)

    def on_evaluator(self) -> str:
        metric = f'"{self.metric}"' if isinstance(self.metric, str) else "its score"
        return (
            f"it forgets at the start of each what {metric} was before, and so ends nothing. Attach it to the trainer, "
            "where the metrics that Evaluate brings have its prefix before their names"
        )

    def start(self, engine: Engine[Any, Any]) -> None:
        """Forgets an earlier run, if this one is from the beginning; a restored run that it had stopped stays so."""
        self._ends_run = False
        if not engine.training and engine.state.max_epochs == 1 and not self.told_misplaced:
            self.told_misplaced = True
            if dist.rank() == 0:
                warnings.warn(
                    "EarlyStopping is attached to an engine that evaluates, of which a run has one epoch and nothing "
                    "to stop, and it begins anew with each run. Attach it to the trainer, which gets the evaluator's "
                    "metrics by Evaluate(evaluator, data, prefix=...)",
                    stacklevel=2,
                )
        if engine.state.iteration == 0:
            self.best, self.waited = None, 0
        elif self._restored and self.waited >= self.patience:
            self._ends_run = True
            engine.terminate()
        self._restored = False
        if self._watch is not None:
            self._watch.start(engine.state)

    def check(self, engine: Engine[Any, Any]) -> None:
        """Compares the newest value with the best one."""
        if isinstance(self.metric, str):
            assert self._watch is not None
            if not self._watch.is_new(engine.state.metrics):
                return
            value = self._number(engine.state.metrics[self.metric])
        else:
            value = self._number(self.metric(engine))
        gain = 0.0 if self.best is None else (value - self.best) * (1 if self.mode == "max" else -1)
        if (self.best is None and not math.isnan(value)) or gain > self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self._ends_run = True
            engine.terminate()

    def _number(self, value: Any) -> float:
        if isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.numel() == 1):
            return float(value)
        kind, what = type(value).__name__, self._what()
        raise TypeError(
            f"EarlyStopping compares numbers, but {what} is a {kind}: {value!r}. Watch one number: a metric with an "
            'average (F1(average="macro")), an item (attach F1()[1], or watch one by its own name), or a function of '
            "the engine"
        )

    def _what(self) -> str:
        return f'"{self.metric}"' if isinstance(self.metric, str) else getattr(self.metric, "__name__", "the score")

    def tell(self, engine: Engine[Any, Any]) -> None:
        """Prints why the run ended, when it was this handler that ended it."""
        if not self._ends_run or dist.rank() != 0:
            return
        what, evaluations = self._what(), f"{self.waited} evaluation{'s' * (self.waited > 1)}"
        if self.best is None:
            warnings.warn(
                f"EarlyStopping ended the run after epoch {engine.state.epoch}: {what} was not a number (NaN) in "
                f"{evaluations} (patience={self.patience}), and never was one before. Look at what is measured; "
                "TerminateOnNan tells where training diverges",
                stacklevel=2,
            )
            return
        delta = f", min_delta={self.min_delta:g}" if self.min_delta else ""
        print(
            f"EarlyStopping ended the run after epoch {engine.state.epoch}: {what} was not better than {self.best:.6g} "
            f'in {evaluations} (mode="{self.mode}", patience={self.patience}{delta})',
            flush=True,
        )

    def state_dict(self) -> dict[str, Any]:
        times_set = 0 if self._watch is None else self._watch.times_set
        return {"best": self.best, "waited": self.waited, "times_set": times_set}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.waited = state_dict["waited"]
        self._restored = True
        if self._watch is not None:
            self._watch.load(state_dict.get("times_set"))


class TerminateOnNan:
    """Terminates the run when the output of an iteration has a number that is not finite (NaN or infinite).

    Looks into tensors, numbers and nested mappings and sequences of the output, or of `output_transform(output)`, after
    each `every`-th iteration; each look copies one flag a tensor from the device. It warns, naming the iteration and
    what it found, and sets `state.diverged`, so that no checkpoint keeps what is lost.
    """

    def __init__(self, output_transform: Callable[[Any], Any] | None = None, *, every: int = 1) -> None:
        require_function("TerminateOnNan", "output_transform", output_transform, "the output")
        whole_number("every", every, 1, who="TerminateOnNan")
        self._output_transform = output_transform
        self._event = Events.ITERATION_COMPLETED(every=every)

    def attach(self, engine: Engine[Any, Any]) -> None:
        engine.add_event_handler(self._event, self.check, order=Order.STOPPERS)

    def check(self, engine: Engine[Any, Any]) -> None:
        """Looks at the output of the iteration."""
        state = engine.state
        output = state.output if self._output_transform is None else self._output_transform(state.output)
        if all(map(_finite, leaves_of(output))):
            return
        warnings.warn(
            f"the output of iteration {state.iteration} (epoch {state.epoch}) is not finite: {output}; the run ends. "
            "Lower the learning rate, clip gradients, or look for bad data in this batch",
            stacklevel=2,
        )
        engine.terminate(diverged=True)

    __call__ = check  # also at an event of one's own: add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan())


def _finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not (value.is_floating_point() or value.is_complex()) or bool(torch.isfinite(value).all())
    return isinstance(value, Integral) or not isinstance(value, Complex) or cmath.isfinite(complex(value))


class TimeLimit:
    """Terminates the run when it has taken `limit`: seconds or a timedelta, counted from the start of each run.

    A clock of its own watches the time, so a step pays nothing for it. Added to an event as a plain function
    (`add_event_handler(Events.ITERATION_COMPLETED, TimeLimit(3600))`) it looks there whether the time is over, counted
    from when it was made.
    """

    def __init__(self, limit: float | timedelta) -> None:
        seconds: Any = limit.total_seconds() if isinstance(limit, timedelta) else limit
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"TimeLimit takes seconds or a timedelta, but got {limit!r}")
        if not seconds > 0:
            raise ValueError(f"TimeLimit needs a positive time, but got {limit}")
        if seconds > threading.TIMEOUT_MAX:
            raise ValueError(f"TimeLimit can't wait for {limit}; for a run without a limit leave it out")
        self.seconds = float(seconds)
        self._timer: threading.Timer | None = None
        self._over = False
        self._made_at = time.monotonic()

    def attach(self, engine: Engine[Any, Any]) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.TERMINATE, self.tell)
        engine.add_event_handler(Events.CLOSED, self.cancel)

    def start(self, engine: Engine[Any, Any]) -> None:
        """Starts the clock."""
        self._over = False
        self._timer = threading.Timer(self.seconds, self._end, args=(engine,))
        self._timer.daemon = True
        self._timer.start()

    def __call__(self, engine: Engine[Any, Any]) -> None:
        """Checks once whether the time is over, counted from when this was made."""
        if not self._over and time.monotonic() - self._made_at > self.seconds:
            self._end(engine)
            self.tell(engine)

    def cancel(self) -> None:
        """Stops the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, engine: Engine[Any, Any]) -> None:
        self._over = True
        engine.terminate()

    def tell(self, engine: Engine[Any, Any]) -> None:
        """Prints why the run ended, when it was the clock that ended it."""
        if self._over and dist.rank() == 0:
            state = engine.state
            print(
                f"TimeLimit ended the run in epoch {state.epoch}, iteration {state.iteration}: its {self.seconds:g} "
                "seconds are over",
                flush=True,
            )
