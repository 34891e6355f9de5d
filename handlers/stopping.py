"""Handlers that end a run before its limit."""

from __future__ import annotations

import cmath
import logging
import math
import threading
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from numbers import Complex, Integral
from typing import Any

import torch

from leyden.engine import Engine, Events, Order

logger = logging.getLogger(__name__)


class EarlyStopping:
    """Terminates the run once a metric has not improved in `patience` evaluations.

    `metric`: its name in the trainer's `state.metrics`, or a function of the engine that gives a score. `mode`: "max"
    or "min", what better means. `min_delta`: only a larger change counts. An epoch that brought no new value (no
    evaluation) does not count.

    Raises ValueError for a bad mode or patience, and at the start of a run for a metric that will not come up.
    """

    def __init__(
        self,
        metric: str | Callable[[Engine[Any, Any]], float],
        *,
        mode: str = "max",
        patience: int = 3,
        min_delta: float = 0.0,
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f'EarlyStopping needs mode "max" or "min", but got {mode!r}')
        if patience < 1:
            raise ValueError(f"EarlyStopping needs a patience of at least 1, but got {patience}")
        if min_delta < 0:
            raise ValueError(f"EarlyStopping needs a min_delta of at least 0, but got {min_delta}")
        self.metric = metric
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.waited = 0
        """Evaluations since the best one."""
        self._times_set = 0
        self._restored = False
        self._goes_on = False  # it is known which value was the last one seen

    def attach(self, engine: Engine[Any, Any]) -> None:
        if isinstance(self.metric, str):
            engine.add_event_handler(Events.STARTED, engine.require_metric, self.metric, "EarlyStopping")
        engine.add_event_handler(Events.STARTED, self.start, order=Order.METRICS)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check, order=Order.STOPPERS)

    def start(self, engine: Engine[Any, Any]) -> None:
        """Forgets an earlier run, if this one is from the beginning; a restored run that it had stopped stays so."""
        if engine.state.iteration == 0:
            self.best, self.waited = None, 0
        elif self._restored and self.waited >= self.patience:
            engine.terminate()
        self._restored = False
        if isinstance(self.metric, str) and not self._goes_on:
            self._times_set = engine.state.metrics.times_set.get(self.metric, 0)
        self._goes_on = False

    def check(self, engine: Engine[Any, Any]) -> None:
        """Compares the newest value with the best one."""
        if isinstance(self.metric, str):
            times_set = engine.state.metrics.times_set.get(self.metric, 0)
            if times_set == self._times_set:
                return
            self._times_set = times_set
            value = float(engine.state.metrics[self.metric])
        else:
            value = float(self.metric(engine))
        gain = 0.0 if self.best is None else (value - self.best) * (1 if self.mode == "max" else -1)
        if (self.best is None and not math.isnan(value)) or gain > self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            logger.info(
                "EarlyStopping: no better than %s in %d evaluations; the run terminates", self.best, self.waited
            )
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "times_set": self._times_set}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.waited = state_dict["waited"]
        self._restored = True
        self._goes_on = "times_set" in state_dict  # not in a checkpoint of schema 1
        self._times_set = state_dict.get("times_set", 0)


class TerminateOnNan:
    """Terminates the run when the output of an iteration has a number that is not finite (NaN or infinite).

    Looks into tensors, numbers and nested mappings and sequences of the output, or of `output_transform(output)`, after
    each `every`-th iteration; each look copies one flag a tensor from the device. It warns, naming the iteration and
    what it found, and sets `state.diverged`, so that no checkpoint keeps what is lost.
    """

    def __init__(self, output_transform: Callable[[Any], Any] | None = None, *, every: int = 1) -> None:
        self._output_transform = output_transform
        self._event = Events.ITERATION_COMPLETED(every=every)

    def attach(self, engine: Engine[Any, Any]) -> None:
        engine.add_event_handler(self._event, self.check, order=Order.STOPPERS)

    def check(self, engine: Engine[Any, Any]) -> None:
        """Looks at the output of the iteration."""
        state = engine.state
        output = state.output if self._output_transform is None else self._output_transform(state.output)
        if _finite(output):
            return
        warnings.warn(
            f"the output of iteration {state.iteration} (epoch {state.epoch}) is not finite: {output}; the run ends. "
            "Lower the learning rate, clip gradients, or look for bad data in this batch",
            stacklevel=2,
        )
        engine.terminate(diverged=True)


def _finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not (value.is_floating_point() or value.is_complex()) or bool(torch.isfinite(value).all())
    if isinstance(value, Mapping):
        return all(_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_finite(item) for item in value)
    return isinstance(value, Integral) or not isinstance(value, Complex) or cmath.isfinite(complex(value))


class TimeLimit:
    """Terminates the run when it has taken `limit`: seconds or a timedelta, counted from the start of each run.

    A clock of its own watches the time, so a step pays nothing for it.
    """

    def __init__(self, limit: float | timedelta) -> None:
        seconds = limit.total_seconds() if isinstance(limit, timedelta) else float(limit)
        if not seconds > 0:
            raise ValueError(f"TimeLimit needs a positive time, but got {limit}")
        self.seconds = seconds
        self._timer: threading.Timer | None = None

    def attach(self, engine: Engine[Any, Any]) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.CLOSED, self.cancel)

    def start(self, engine: Engine[Any, Any]) -> None:
        """Starts the clock."""
        self._timer = threading.Timer(self.seconds, self._end, args=(engine,))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Stops the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, engine: Engine[Any, Any]) -> None:
        logger.info("TimeLimit: %g seconds are over; the run terminates", self.seconds)
        engine.terminate()
