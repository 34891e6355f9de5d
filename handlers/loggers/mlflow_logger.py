"""Logging to MLflow: into a SQLite file beside the run, or to a tracking server."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.handlers.loggers.base import Ending, Logger, Value
from leyden.handlers.loggers.mlflow_store import check_server, database_path, opening, resolve_uri, without_password
from leyden.handlers.loggers.packages import require_package
from leyden.handlers.loggers.values import MetricChoice, OutputTransform

VALUES_A_CALL = 1000  # what MLflow takes in one log_batch
PARAMS_A_CALL = 100
STATUS = {Ending.FINISHED: "FINISHED", Ending.STOPPED: "KILLED", Ending.FAILED: "FAILED"}
ERROR_TAG = "error"


class MLflowLogger(Logger):
    """Logs a run's parameters and curves to MLflow; what is logged when, see `Logger`.

    `experiment`: its name, made if it is not there; None: MLFLOW_EXPERIMENT_NAME, else MLflow's "Default".
    `tracking_uri`: a server, or a database; None: MLFLOW_TRACKING_URI, else the SQLite file mlflow.db in the working
    directory, which needs no server. `run_id`: an existing run to go on with. `run_name`, `tags`: of a new run.

    The run's status is RUNNING, then FINISHED, KILLED (interrupt, Ctrl-C) or FAILED (an exception; its message is the
    tag "error"). The run's id is part of the logger's state: resumed training goes on with the same run.

    Raises ModuleNotFoundError if mlflow is not installed; when a run starts: ConnectionError if no server answers, and
    what MLflow raises.
    """

    def __init__(
        self,
        experiment: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        every: int | None = 50,
        metrics: MetricChoice = "all",
        output_transform: OutputTransform | None = None,
        learning_rates: bool = True,
        params: Mapping[str, Any] | None = None,
        patience: float = 30.0,
    ) -> None:
        require_package("mlflow", "mlflow", type(self).__name__)
        super().__init__(
            every=every,
            metrics=metrics,
            output_transform=output_transform,
            learning_rates=learning_rates,
            params=params,
            patience=patience,
        )
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
        self.run_name = run_name
        self.tracking_uri = resolve_uri(tracking_uri)
        self.tags = dict(tags or {})
        self.run_id: str | None = run_id
        """The run on rank 0: None before the first run starts."""
        self._given_run_id = run_id
        self._client: Any = None

    # -- for users ---------------------------------------------------------------------------------------------------

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Copies a file to the run, into its folder `artifact_path`; returns when it is there. Rank 0 alone does.

        A backend that fails is warned of. Raises FileNotFoundError if there is no such file, RuntimeError before a run.
        """
        if dist.rank() != 0:
            return
        if not Path(path).is_file():
            raise FileNotFoundError(f"log_artifact takes a file, but there is none at {path}")
        if self._client is None:
            raise RuntimeError("log_artifact needs the run, which begins at Events.STARTED")
        from mlflow.exceptions import MlflowException

        try:
            check_server(self.tracking_uri)
            self._client.log_artifact(self.run_id, str(path), artifact_path)
        except (MlflowException, OSError) as error:
            self._warn(f"{path} could not be logged to {self._place()}: {error}")

    def dashboard_command(self) -> str:
        """The command line that shows this store in a browser."""
        if self.tracking_uri.startswith(("http://", "https://")):
            return f"{shlex.quote(sys.executable)} -m webbrowser {shlex.quote(self.tracking_uri)}"
        program = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
        return f"{program} ui --backend-store-uri {shlex.quote(self.tracking_uri)}"

    def state_dict(self) -> dict[str, Any]:
        self._flush()
        return {"run_id": self.run_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._given_run_id is None and state_dict["run_id"] is not None:
            self.run_id = state_dict["run_id"]

    # -- the backend -------------------------------------------------------------------------------------------------

    def _open(self, engine: Engine[Any, Any], continues: bool) -> dict[str, str]:
        from mlflow.tracking import MlflowClient

        check_server(self.tracking_uri)
        with opening(self.tracking_uri):
            self._client = MlflowClient(tracking_uri=self.tracking_uri)
        run = self._existing_run() if continues or self._given_run_id is not None else None
        if run is None:
            run = self._new_run()
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
            if ERROR_TAG in run.data.tags:
                self._client.delete_tag(run.info.run_id, ERROR_TAG)
        self.run_id = str(run.info.run_id)
        self._client.set_tag(self.run_id, "world_size", str(dist.world_size()))
        return dict(run.data.params)

    def _existing_run(self) -> Any:
        """The run to go on with; None if there is none, or none any more."""
        if self.run_id is None:
            return None
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(self.run_id)
            gone = "it was deleted" if run.info.lifecycle_stage == "deleted" else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            gone = "there is no such run"
        if gone is None:
            return run
        if self._given_run_id is not None:
            raise ValueError(f"MLflowLogger can't go on with run {self.run_id} in {self._place()}: {gone}")
        self._warn(f"run {self.run_id} can't be continued in {self._place()}: {gone}; a new one begins")
        return None

    def _new_run(self) -> Any:
        from mlflow.tracking.context.registry import resolve_tags

        tags = {name: str(value) for name, value in resolve_tags(self.tags).items()}
        return self._client.create_run(self._experiment_id(), tags=tags, run_name=self.run_name)

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            path = database_path(self.tracking_uri)
            place = None if path is None else (path.parent / "mlartifacts").as_uri()
            try:
                return str(self._client.create_experiment(self.experiment, artifact_location=place))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(self.experiment)  # another process was quicker
        return str(found.experiment_id)

    def _write(self, values: list[Value]) -> None:
        from mlflow.entities import Metric

        check_server(self.tracking_uri)
        metrics = [Metric(self._clean(v.name), v.number, round(v.time * 1000), v.step) for v in values]
        for first in range(0, len(metrics), VALUES_A_CALL):
            self._client.log_batch(self.run_id, metrics=metrics[first : first + VALUES_A_CALL], synchronous=True)

    def _write_params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        check_server(self.tracking_uri)
        entries = [Param(name, text) for name, text in params.items()]
        for first in range(0, len(entries), PARAMS_A_CALL):
            self._client.log_batch(self.run_id, params=entries[first : first + PARAMS_A_CALL], synchronous=True)

    def _close(self, ending: Ending | None, error: BaseException | None) -> None:
        if ending is None:
            return
        check_server(self.tracking_uri)
        if ending is Ending.FAILED:
            self._client.set_tag(self.run_id, ERROR_TAG, f"{type(error).__name__}: {error}"[:5000])
        self._client.set_terminated(self.run_id, STATUS[ending])

    def _clean(self, name: str) -> str:
        return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)

    def _place(self) -> str:
        return without_password(self.tracking_uri)
