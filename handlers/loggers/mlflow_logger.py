"""Logging to MLflow: into a SQLite file beside the run, or to a tracking server."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.engine.randomness import Aside
from leyden.handlers.common.packages import require_package
from leyden.handlers.loggers.base import Logger
from leyden.handlers.loggers.entries import Ending, Image, Value
from leyden.handlers.loggers.mlflow_history import MLflowHistory
from leyden.handlers.loggers.mlflow_images import MLflowImages
from leyden.handlers.loggers.mlflow_names import LONGEST_OF_IMAGE, REFUSED_OF_IMAGE, MLflowNames
from leyden.handlers.loggers.mlflow_runs import (
    PARENT_TAG,
    PROCESS_TAG,
    end_abandoned,
    experiment_named,
    experiment_of_environment,
    own_process,
    run_if_there,
)
from leyden.handlers.loggers.mlflow_store import check_server, database_path, opening, resolve_uri, without_password
from leyden.handlers.loggers.values import MetricChoice
from leyden.metrics import OutputTransform

if TYPE_CHECKING:
    from leyden.handlers.loggers.mlflow_active import Activity

VALUES_A_CALL = 1000  # what MLflow takes in one log_batch
PARAMS_A_CALL = 100
STATUS = {Ending.FINISHED: "FINISHED", Ending.STOPPED: "KILLED", Ending.FAILED: "FAILED"}
ERROR_TAG = "error"
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "RESOURCE_ALREADY_EXISTS")
"""MLflow's error codes for what it will never accept."""


class MLflowLogger(Logger):
    """Logs a run's parameters and curves to MLflow; what is logged when, see `Logger`.

    `experiment`: its name, made if it is not there; None: the one of `mlflow.set_experiment`, else
    MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, MLflow's "Default". `tracking_uri`: a server, a database, or the path
    of a database or of its folder; None: that of `mlflow.set_tracking_uri`, else MLFLOW_TRACKING_URI, else the SQLite
    file mlflow.db in the working directory, which needs no server. `run_id`: an existing run to go on with; None: the
    active run of `mlflow.start_run`, else MLFLOW_RUN_ID, else a run of its own. `run_name`, `tags`: of a new run; with
    a name it is a new one also where a run is active, whose child it then is.

    The run's status is RUNNING, then FINISHED, KILLED (interrupt, Ctrl-C, a trial that was pruned) or FAILED (an
    exception; its message is the tag "error"); that of the script's own active run is left to the script. Runs of the
    experiment whose process died on this machine become KILLED when a new one begins. While the run goes on
    `mlflow.log_metric` and its like log to it. Its id is part of the logger's state: resumed training goes on with the
    same run. Where it lies is printed once.

    MLflow takes letters and digits of any script in names, and " _-./:" (those of images: A to Z, a to z, " _-./");
    other names are changed, each differently, which is told.

    Raises ModuleNotFoundError if mlflow is not installed; when a run starts: ConnectionError if no server answers,
    ValueError for a run or experiment that is not there, and what MLflow raises.
    """

    def __init__(
        self,
        experiment: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | os.PathLike[str] | None = None,
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
        self._given_experiment = experiment
        self._given_uri = tracking_uri is not None
        self._environment_uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._names = MLflowNames()
        self._image_names = MLflowNames(REFUSED_OF_IMAGE, LONGEST_OF_IMAGE)
        self._client: Any = None
        self._history: MLflowHistory | None = None
        self._images: MLflowImages | None = None
        self._activity: Activity | None = None
        self._is_open = False
        self._is_users = False  # the run is the script's own
        self._announced: str | None = None

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
        return (
            super().state_dict()
            | {"run_id": self.run_id, "names": self._names.given}
            | ({"image_names": given} if (given := self._image_names.given) else {})
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._names.restore(state_dict.get("names", {}))
        self._image_names.restore(state_dict.get("image_names", {}))
        if self._given_run_id is None and state_dict["run_id"] is not None:
            self.run_id = state_dict["run_id"]

    # -- the run -----------------------------------------------------------------------------------------------------

    def _open(self, engine: Engine[Any, Any], continues: bool) -> dict[str, str]:
        from mlflow.tracking import MlflowClient

        from leyden.handlers.loggers import mlflow_active

        self._is_open = False
        with Aside():  # MLflow draws names of runs
            self._settle_store()
            check_server(self.tracking_uri)
            with opening(self.tracking_uri):
                self._client = MlflowClient(tracking_uri=self.tracking_uri)
            mlflow_active.draw_apart()
            run = self._choose_run(continues)
            self.run_id = str(run.info.run_id)
            self._images = MLflowImages(self._client, self.run_id, self._may_repeat and self._history is not None)
            self._is_open = True
            self._client.set_tag(self.run_id, PROCESS_TAG, own_process())
            self._client.set_tag(self.run_id, "world_size", str(dist.world_size()))
            if not self._is_users:
                self._activity = mlflow_active.Activity(run, self.tracking_uri)
        self._announce(run)
        return dict(run.data.params)

    def _settle_store(self) -> None:
        """The store by MLflow's own calls, where they chose another one since this was made and none was given."""
        from leyden.handlers.loggers import mlflow_active

        uri = mlflow_active.users_uri()
        if not self._given_uri and uri not in (None, self._environment_uri):
            self.tracking_uri = resolve_uri(uri)

    def _choose_run(self, continues: bool) -> Any:
        """A new run, or one to go on with, which is then RUNNING."""
        from leyden.handlers.loggers import mlflow_active

        users = mlflow_active.users_run()
        if users is not None and resolve_uri(mlflow_active.users_uri()) != self.tracking_uri:
            users = None
        self._is_users = users is not None and self._takes(users)
        run = None
        if self._given_run_id is not None:
            run = self._required_run(self._given_run_id)
        elif self._is_users:
            run = self._required_run(users.info.run_id)
            for name, value in self.tags.items():
                self._client.set_tag(users.info.run_id, name, str(value))
        elif (run_id := mlflow_active.take_run_id()) is not None:
            run = self._required_run(run_id)
        elif continues and self.run_id is not None:
            run, gone = run_if_there(self._client, self.run_id)
            if gone is not None:
                self._warn(f"run {self.run_id} can't be continued in {self._place()}: {gone}; a new one begins")
        if run is None:
            self._history = None
            return self._new_run(users)
        if not self._is_users:
            self._client.update_run(run.info.run_id, status="RUNNING")
        if ERROR_TAG in run.data.tags:
            self._client.delete_tag(run.info.run_id, ERROR_TAG)
        latest = mlflow_active.latest_metrics(run) if self._may_repeat else ()
        self._history = MLflowHistory(self._client, run.info.run_id, latest)
        return run

    def _takes(self, users: Any) -> bool:
        """True if this logs to the script's own run: nothing was asked for that it is not."""
        if self._given_run_id is not None or self.run_name is not None:
            return False
        if self._given_experiment is None:
            return True
        return bool(self._client.get_experiment(users.info.experiment_id).name == self._given_experiment)

    def _required_run(self, run_id: str) -> Any:
        run, gone = run_if_there(self._client, run_id)
        if gone is not None:
            raise ValueError(f"MLflowLogger can't go on with run {run_id} in {self._place()}: {gone}")
        return run

    def _new_run(self, users: Any) -> Any:
        from mlflow.tracking.context.registry import resolve_tags

        experiment = self._find_experiment()
        self.experiment = experiment.name
        end_abandoned(self._client, experiment.experiment_id)
        tags = {name: str(value) for name, value in resolve_tags(self.tags).items()}
        if users is not None and users.info.experiment_id == experiment.experiment_id:
            tags[PARENT_TAG] = users.info.run_id
        return self._client.create_run(experiment.experiment_id, tags=tags, run_name=self.run_name)

    def _find_experiment(self) -> Any:
        from leyden.handlers.loggers import mlflow_active

        chosen = mlflow_active.users_experiment()
        path = database_path(self.tracking_uri)
        artifacts = None if path is None else path.parent / "mlartifacts"
        if self._given_experiment is None:
            if chosen is not None and resolve_uri(mlflow_active.users_uri()) == self.tracking_uri:
                return self._client.get_experiment(chosen)
            if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
                found = experiment_of_environment(self._client)
                if found is not None:
                    return found
        return experiment_named(self._client, self.experiment, artifacts)

    def _announce(self, run: Any) -> None:
        if self._announced != self.run_id:
            self._announced = self.run_id
            print(
                f"MLflowLogger: the run {run.info.run_name} is in {self._place()}; {self.dashboard_command()} shows it",
                flush=True,
            )

    def _end(self) -> None:
        if self._activity is not None:
            self._activity.end()
            self._activity = None
        super()._end()

    def _close(self, ending: Ending | None, error: BaseException | None) -> None:
        if ending is None or not self._is_open:
            return
        check_server(self.tracking_uri)
        if ending is Ending.FAILED:
            self._client.set_tag(self.run_id, ERROR_TAG, f"{type(error).__name__}: {error}"[:5000])
        if not self._is_users:
            self._client.set_terminated(self.run_id, STATUS[ending])

    # -- what goes to it ---------------------------------------------------------------------------------------------

    def _write(self, values: list[Value]) -> None:
        from mlflow.entities import Metric

        check_server(self.tracking_uri)
        if self._history is not None:
            values = self._history.without_known(values)
        metrics = [Metric(v.name, v.number, round(v.time * 1000), v.step) for v in values]
        for first in range(0, len(metrics), VALUES_A_CALL):
            self._client.log_batch(self.run_id, metrics=metrics[first : first + VALUES_A_CALL], synchronous=True)

    def _write_params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        check_server(self.tracking_uri)
        entries = [Param(name, text) for name, text in params.items()]
        for first in range(0, len(entries), PARAMS_A_CALL):
            self._client.log_batch(self.run_id, params=entries[first : first + PARAMS_A_CALL], synchronous=True)

    def _write_image(self, image: Image) -> None:
        assert self._images is not None
        check_server(self.tracking_uri)
        self._images.write(image)

    def _clean(self, name: str) -> str:
        return self._cleaned(self._names, name)

    def _clean_of_image(self, name: str) -> str:
        return self._cleaned(self._image_names, name)

    def _cleaned(self, names: MLflowNames, name: str) -> str:
        known = name in names.changed
        clean = names.clean(name)
        if clean != name and not known:
            self._warn(f"{name!r} is logged as {clean!r}: MLflow does not accept this name, or uses it for another one")
        return clean

    def _is_refusal(self, error: Exception) -> bool:
        code = getattr(error, "error_code", None)  # of MlflowException
        return super()._is_refusal(error) if code is None else code in REFUSALS

    def _place(self) -> str:
        return without_password(self.tracking_uri)
