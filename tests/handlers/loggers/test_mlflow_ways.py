"""MLflow's own ways of choosing a store, an experiment and a run are respected; its calls reach the logger's run."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient, fluent

from leyden.engine import Engine, Events
from leyden.handlers.loggers import MLflowLogger


@pytest.fixture
def untouched(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace in which no script has called MLflow; afterwards there is none again."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    yield workspace
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def client(place: Path, name: str = "mlflow.db") -> Any:
    return MlflowClient(tracking_uri=f"sqlite:///{place / name}")


def run_with(logger: MLflowLogger, act: Any = lambda: None) -> MLflowLogger:
    engine = Engine(lambda engine, batch: float(engine.state.iteration))
    engine.attach(logger)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), act)
    engine.run(range(3))
    return logger


def runs_of(place: Path, experiment: str) -> list[Any]:
    found = client(place).get_experiment_by_name(experiment)
    return list(client(place).search_runs([found.experiment_id]))


def test_the_experiment_that_was_set_is_used(untouched: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{untouched}/mlflow.db")
    mlflow.set_experiment("chosen")
    logger = run_with(MLflowLogger(every=1))
    assert [run.info.run_id for run in runs_of(untouched, "chosen")] == [logger.run_id]
    assert logger.experiment == "chosen"
    run_with(named := MLflowLogger("named", every=1))
    assert [run.info.run_id for run in runs_of(untouched, "named")] == [named.run_id], "what is given goes first"


def test_the_experiment_of_the_environment_by_number(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client(untouched).create_experiment("by number"))
    logger = run_with(MLflowLogger())
    assert [run.info.run_id for run in runs_of(untouched, "by number")] == [logger.run_id]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12345")
    with pytest.raises(ValueError, match="MLFLOW_EXPERIMENT_ID is 12345, but there is no such experiment"):
        run_with(MLflowLogger())


def test_the_store_that_was_set_is_used(untouched: Path, empty_database: Path) -> None:
    before = MLflowLogger("store", every=1)
    (untouched / "other.db").write_bytes(empty_database.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{untouched}/other.db")
    for logger in (before, MLflowLogger("store", every=1)):
        run_with(logger)
        assert client(untouched, "other.db").get_run(logger.run_id).data.metrics["train/loss"] == 3.0
    assert mlflow.get_tracking_uri() == f"sqlite:///{untouched}/other.db"


def test_the_active_run_is_the_scripts_and_stays_so(untouched: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{untouched}/mlflow.db")
    with mlflow.start_run() as active:
        logger = run_with(MLflowLogger(every=1, tags={"team": "vision"}))
        assert logger.run_id == active.info.run_id
        assert client(untouched).get_run(active.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("after", 1.0)
    run = client(untouched).get_run(active.info.run_id)
    assert (run.info.status, run.data.metrics["train/loss"], run.data.metrics["after"]) == ("FINISHED", 3.0, 1.0)
    assert run.data.tags["team"] == "vision"


def test_a_named_run_is_a_child_of_the_active_one(untouched: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{untouched}/mlflow.db")
    with mlflow.start_run() as active:
        fold = run_with(MLflowLogger(run_name="fold 1", every=1))
        assert mlflow.active_run().info.run_id == active.info.run_id
    child = client(untouched).get_run(fold.run_id)
    assert child.data.tags["mlflow.parentRunId"] == active.info.run_id
    assert child.info.status == "FINISHED"


def test_an_active_run_elsewhere_is_left_alone(untouched: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{untouched}/mlflow.db")
    with mlflow.start_run() as active:
        logger = run_with(MLflowLogger("another", every=1))
    assert logger.run_id != active.info.run_id
    assert client(untouched).get_run(active.info.run_id).data.metrics == {}


def test_the_run_of_the_environment_is_gone_on_with_once(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = client(untouched).create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert run_with(MLflowLogger(every=1)).run_id == run_id
    assert client(untouched).get_run(run_id).info.status == "FINISHED"
    assert run_with(MLflowLogger(every=1)).run_id != run_id, "as with mlflow.start_run"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(ValueError, match=r"can't go on with run 0{32} in sqlite.*: there is no such run"):
        run_with(MLflowLogger())


def test_mlflows_own_calls_in_a_handler_reach_the_loggers_run(untouched: Path) -> None:
    logger = MLflowLogger("calls", every=1)

    def act() -> None:
        assert mlflow.active_run().info.run_id == logger.run_id
        mlflow.log_metric("own", 5.0, step=2)
        mlflow.log_param("by", "hand")

    run_with(logger, act)
    run = client(untouched).get_run(logger.run_id)
    assert (run.data.metrics["own"], run.data.params["by"], run.info.status) == (5.0, "hand", "FINISHED")
    assert mlflow.active_run() is None
    assert not mlflow.is_tracking_uri_set()
    assert len(runs_of(untouched, "calls")) == 1


def test_two_loggers_leave_mlflow_as_it_was(untouched: Path, empty_database: Path) -> None:
    (untouched / "other.db").write_bytes(empty_database.read_bytes())
    engine = Engine(lambda engine, batch: 1.0)
    first, second = MLflowLogger("a", every=1), MLflowLogger("b", every=1, tracking_uri=untouched / "other.db")
    engine.attach(first, second)
    engine.run(range(2))
    assert client(untouched).get_run(first.run_id).data.metrics["train/loss"] == 1.0
    assert client(untouched, "other.db").get_run(second.run_id).data.metrics["train/loss"] == 1.0
    assert (mlflow.active_run(), mlflow.is_tracking_uri_set()) == (None, False)


class TrialPruned(Exception):
    """As optuna's."""


@pytest.mark.parametrize(
    ("kind", "status"), [(TrialPruned, "KILLED"), (KeyboardInterrupt, "KILLED"), (OSError, "FAILED")]
)
def test_only_what_failed_is_failed(untouched: Path, kind: type[BaseException], status: str) -> None:
    logger = MLflowLogger("ends")

    def act() -> None:
        raise kind("here")

    with pytest.raises(kind):
        run_with(logger, act)
    run = client(untouched).get_run(logger.run_id)
    assert (run.info.status, "error" in run.data.tags) == (status, status == "FAILED")
    assert mlflow.active_run() is None


@pytest.mark.filterwarnings("ignore:MLflowLogger:UserWarning")
def test_an_error_at_the_start_leaves_no_run_running(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = MLflowLogger("start")
    engine = Engine(lambda engine, batch: None)
    engine.attach(logger)
    with monkeypatch.context() as patch:
        patch.setattr(logger, "_write_params", lambda params: (_ for _ in ()).throw(ConnectionError("away")))
        with pytest.raises(ConnectionError, match="away"):
            engine.run(range(1))
    assert [run.info.status for run in runs_of(untouched, "start")] == ["FAILED"]
    assert mlflow.active_run() is None


def test_where_the_run_lies_is_printed_once(untouched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine, logger = Engine(lambda engine, batch: 1.0), MLflowLogger("printed")
    engine.attach(logger)
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), engine.interrupt):
        engine.run(range(3))
    engine.run()
    (line,) = capsys.readouterr().out.splitlines()
    assert f"sqlite:///{untouched}/mlflow.db" in line
    assert logger.dashboard_command() in line


def test_a_users_random_numbers_are_left_alone(untouched: Path) -> None:
    random.seed(1)
    expected = [random.random() for _ in range(3)]
    random.seed(1)
    drawn: list[float] = []
    run_with(MLflowLogger("random", every=1), lambda: drawn.append(random.random()))
    drawn += [random.random() for _ in range(2)]
    assert drawn == expected


def test_what_waits_for_a_server_draws_from_a_generator_of_its_own(untouched: Path) -> None:
    from urllib3.util.retry import Retry

    run_with(MLflowLogger("random"))
    state = random.getstate()
    retry = Retry(total=5, backoff_factor=0.1, backoff_jitter=1.0)
    for _ in range(3):
        retry = retry.increment("POST", "/", error=OSError())
    assert retry.get_backoff_time() > 0
    assert random.getstate() == state
