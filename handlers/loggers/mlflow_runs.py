"""Experiments and runs in MLflow: found, made, and ended where their process died."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leyden.handlers.checkpoint.store.processes import ProcessIdentity

logger = logging.getLogger(__name__)

PROCESS_TAG = "leyden.process"
"""Which process writes a run, or did last."""
PARENT_TAG = "mlflow.parentRunId"


def own_process() -> str:
    """This process, as PROCESS_TAG names it."""
    return json.dumps(asdict(ProcessIdentity.own()))


def experiment_named(client: Any, name: str, artifacts: Path | None) -> Any:
    """The experiment, made if it is not there; `artifacts`: where its files go, None: where the server says."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=None if artifacts is None else artifacts.as_uri())
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was quicker
                raise
        found = client.get_experiment_by_name(name)
    return found


def experiment_of_environment(client: Any) -> Any:
    """The experiment that MLFLOW_EXPERIMENT_ID names; None if it names none. Raises ValueError for one that is gone."""
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not number:
        return None
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(number)
    except MlflowException as error:
        raise ValueError(f"MLFLOW_EXPERIMENT_ID is {number}, but there is no such experiment: {error}") from error


def run_if_there(client: Any, run_id: str) -> tuple[Any, str | None]:
    """The run, or None and the reason why it can't be continued."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None, "there is no such run"
    if run.info.lifecycle_stage == "deleted":
        return None, "it was deleted"
    return run, None


def end_abandoned(client: Any, experiment_id: str) -> None:
    """Sets the runs of an experiment to KILLED if they are still RUNNING but their process on this machine died."""
    from mlflow.exceptions import MlflowException

    try:
        for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
            if _is_abandoned(run.data.tags.get(PROCESS_TAG)):
                client.set_terminated(run.info.run_id, "KILLED")
    except MlflowException as error:  # no reason for this run not to begin
        logger.info("runs of dead processes could not be ended: %s", error)


def _is_abandoned(tag: str | None) -> bool:
    try:
        process = None if tag is None else ProcessIdentity.of(json.loads(tag))
    except ValueError:
        return False
    return process is not None and process.is_near and not process.is_alive
