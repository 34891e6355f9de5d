"""MLflow's own calls beside a logger: which store, run and experiment a script chose by them, and where they log to.

All that is relied on of MLflow's inner parts stands here; tests/handlers/loggers/test_mlflow_ways.py tells when a
release takes it away.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import mlflow
from mlflow.tracking import fluent

DRAWING = (
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.telemetry.client",
    "mlflow.utils.request_utils",
    "mlflow.utils.rest_utils",
    "urllib3.util.retry",
)
"""Modules that draw from python's generator in threads: how long to wait before the next attempt, for example."""


class LoggersRun(mlflow.ActiveRun):
    """A run that a logger made the active one. uri: its store; uri_before: what was MLflow's before all loggers."""

    uri: str
    uri_before: str | None


def _loggers_runs() -> list[LoggersRun]:
    return [run for run in fluent._active_run_stack.get() if isinstance(run, LoggersRun)]


def users_run() -> Any:
    """The run that the script itself made the active one of this thread; None if there is none."""
    return next((run for run in reversed(fluent._active_run_stack.get()) if not isinstance(run, LoggersRun)), None)


def users_experiment() -> str | None:
    """The id of the experiment chosen by `mlflow.set_experiment`; None if none was."""
    return fluent._active_experiment_id


def users_uri() -> str | None:
    """The store that the script uses by MLflow's own calls; None if it neither chose one nor used any."""
    for run in _loggers_runs():
        return run.uri_before
    used = mlflow.is_tracking_uri_set() or users_run() is not None or users_experiment() is not None
    return mlflow.get_tracking_uri() if used else None


def take_run_id() -> str | None:
    """The run that MLFLOW_RUN_ID names; as with `mlflow.start_run`, for the first one that asks."""
    return os.environ.pop("MLFLOW_RUN_ID", None) or None


def latest_metrics(run: Any) -> list[Any]:
    """The last point of each metric of a run; `run.data.metrics` leaves out the steps."""
    return list(run.data._metric_objs)


class Activity:
    """Makes a run the active one of this thread, and its store MLflow's, so that `mlflow.log_metric` and its like log
    to it; until `end`, which leaves MLflow as it was. Asks no server.
    """

    def __init__(self, run: Any, uri: str) -> None:
        others = _loggers_runs()
        self._run = LoggersRun(run)  # type: ignore[no-untyped-call]
        self._run.uri = uri
        if others:
            self._run.uri_before = others[0].uri_before
        else:
            self._run.uri_before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        self._stack: list[Any] = fluent._active_run_stack.get()
        self._stack.append(self._run)
        mlflow.set_tracking_uri(uri)

    def end(self) -> None:
        self._stack[:] = [run for run in self._stack if run is not self._run]
        others = _loggers_runs()
        before = others[-1].uri if others else self._run.uri_before
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: none is set


def draw_apart() -> None:
    """Gives MLflow and what it calls a generator of their own for what they draw in threads: else numbers that a user
    draws would hang on whether a server answers.
    """
    for name in DRAWING:
        module = sys.modules.get(name)
        if module is not None and getattr(module, "random", None) is random:
            vars(module)["random"] = random.Random()
