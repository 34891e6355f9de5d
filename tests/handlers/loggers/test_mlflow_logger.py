"""MLflow's runs as MLflow's own client reads them back: from the SQLite file that is made beside a run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyden.engine import Engine, Events
from leyden.handlers.loggers import MLflowLogger

MakeTrainer = Callable[[], Engine]


def client(place: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")


def all_runs(place: Path) -> list[Any]:
    experiments = client(place).search_experiments()
    return list(client(place).search_runs([experiment.experiment_id for experiment in experiments]))


def curve(place: Path, run_id: str | None, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client(place).get_metric_history(run_id, name)]


def test_a_run_has_its_parameters_and_curves(workspace: Path, make_trainer: MakeTrainer, batches: Any) -> None:
    trainer, losses = make_trainer(), []
    logger = MLflowLogger("digits", run_name="first", tags={"team": "vision"}, every=2, params={"seed": 3})
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output.item()))
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update({"val/accuracy": e.state.epoch / 4})
    )
    trainer.attach(logger)
    trainer.run(batches, max_epochs=2)
    (run,) = all_runs(workspace)
    assert run.info.run_id == logger.run_id
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert {"team": "vision", "world_size": "1"}.items() <= run.data.tags.items()
    assert {
        "seed": "3",
        "max_epochs": "2",
        "optimizer": "SGD",
        "optimizer/lr": "0.5",
    }.items() <= run.data.params.items()
    means = [(losses[step - 2] + losses[step - 1]) / 2 for step in (2, 4, 6, 8)]
    assert curve(workspace, logger.run_id, "train/loss") == list(zip([2, 4, 6, 8], means, strict=True))
    assert curve(workspace, logger.run_id, "val/accuracy") == [(4, 0.25), (8, 0.5)]
    assert curve(workspace, logger.run_id, "train/lr") == [(2, 0.5), (4, 0.5), (6, 0.5), (8, 0.5)]


def test_a_run_without_any_store_makes_a_file_quietly(tmp_path: Path) -> None:
    script = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from leyden.engine import Engine\n"
        "from leyden.handlers.loggers import MLflowLogger\n"
        "engine, logger = Engine(lambda engine, batch: 0.5), MLflowLogger('new', every=1)\n"
        "engine.attach(logger)\n"
        "engine.run(range(3))\n"
        "print(logger.dashboard_command())\n"
        "from sqlalchemy import create_engine\n"
        "with create_engine('sqlite:///mlflow.db').connect() as connection:\n"
        "    print('synchronous', connection.exec_driver_sql('PRAGMA synchronous').scalar())\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "alembic" not in done.stderr
    assert "database tables" not in done.stderr
    assert f"ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in done.stdout
    assert "synchronous 2" in done.stdout, "connections made later wait for the disk as ever"
    (run,) = all_runs(tmp_path)
    assert curve(tmp_path, run.info.run_id, "train/loss") == [(1, 0.5), (2, 0.5), (3, 0.5)]


def test_a_files_copy_is_kept_beside_the_database(workspace: Path) -> None:
    (workspace / "note.txt").write_text("hello")
    engine, logger = Engine(lambda engine, batch: None), MLflowLogger("with files")
    engine.attach(logger)
    with pytest.raises(RuntimeError, match="log_artifact needs the run"):
        logger.log_artifact("note.txt")
    engine.add_event_handler(Events.STARTED, lambda: logger.log_artifact("note.txt", "notes"))
    engine.run(range(1))
    (copy,) = (workspace / "mlartifacts").rglob("notes/note.txt")
    assert copy.read_text() == "hello"
    with pytest.raises(FileNotFoundError, match=r"there is none at nothing\.txt"):
        logger.log_artifact("nothing.txt")


def stop_by(act: Callable[[Engine], object], engine: Engine) -> None:
    """Runs the engine until `act` stops it in the third iteration."""
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), act):
        try:
            engine.run(range(4), max_epochs=1)
        except (ArithmeticError, KeyboardInterrupt):
            return


def ctrl_c(engine: Engine) -> None:
    raise KeyboardInterrupt


def fail(engine: Engine) -> None:
    raise ArithmeticError("the loss diverged")


def test_the_status_says_how_a_run_stands(workspace: Path) -> None:
    seen: dict[str, Any] = {}

    def run_with(act: Callable[[Engine], object]) -> Any:
        engine, logger = Engine(lambda engine, batch: None), MLflowLogger("ends")
        engine.attach(logger)

        @engine.on(Events.ITERATION_COMPLETED(once=1))
        def while_running() -> None:
            seen["running"] = client(workspace).get_run(logger.run_id).info.status

        stop_by(act, engine)
        return client(workspace).get_run(logger.run_id)

    assert run_with(lambda engine: engine.terminate()).info.status == "FINISHED"
    assert seen["running"] == "RUNNING"
    assert run_with(lambda engine: engine.interrupt()).info.status == "KILLED"
    assert run_with(ctrl_c).info.status == "KILLED"
    failed = run_with(fail)
    assert (failed.info.status, failed.data.tags["error"]) == ("FAILED", "ArithmeticError: the loss diverged")


def test_an_interrupted_run_goes_on_in_the_same_process(workspace: Path) -> None:
    engine, logger = Engine(lambda engine, batch: float(engine.state.iteration)), MLflowLogger("again", every=1)
    engine.attach(logger)
    stop_by(lambda engine: engine.interrupt(), engine)
    first = logger.run_id
    engine.run()
    (run,) = all_runs(workspace)
    assert (run.info.run_id, run.info.status) == (first, "FINISHED")
    assert curve(workspace, first, "train/loss") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    engine.run(max_epochs=1)
    assert logger.run_id != first, "from the beginning: a new run"


def test_resumed_training_goes_on_with_its_run(workspace: Path, make_trainer: MakeTrainer, batches: Any) -> None:
    def make() -> tuple[Engine, MLflowLogger]:
        trainer, logger = make_trainer(), MLflowLogger("resumed", every=1)
        trainer.attach(logger)
        return trainer, logger

    before, logger_before = make()
    with before.add_event_handler(Events.ITERATION_COMPLETED(once=3), fail), pytest.raises(ArithmeticError):
        before.run(batches, max_epochs=1)
    after, logger_after = make()
    after.load_state_dict(before.state_dict())
    with pytest.warns(UserWarning, match=r"first value: max_epochs \(logged: 1, now: 2\)"):
        after.run(batches, max_epochs=2)
    assert logger_after.run_id == logger_before.run_id
    (run,) = all_runs(workspace)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    # The handler that failed came before the logger, so iteration 3 was not logged before, nor run again after.
    assert [step for step, _ in curve(workspace, logger_after.run_id, "train/loss")] == [1, 2, 4, 5, 6, 7, 8]


def test_a_run_that_is_gone_is_replaced_and_told(workspace: Path) -> None:
    engine, logger = Engine(lambda engine, batch: None), MLflowLogger("gone")
    engine.attach(logger)
    logger.load_state_dict({"run_id": "0" * 32})
    with pytest.warns(UserWarning, match="run 0{32} can't be continued in sqlite.*: there is no such run; a new one"):
        engine.run(range(1))
    (run,) = all_runs(workspace)
    assert run.info.run_id == logger.run_id


def test_a_given_run_is_gone_on_with(workspace: Path) -> None:
    run_id = client(workspace).create_run("0").info.run_id
    engine, logger = Engine(lambda engine, batch: 1.0), MLflowLogger(run_id=run_id, every=1)
    engine.attach(logger)
    engine.run(range(1))
    assert curve(workspace, run_id, "train/loss") == [(1, 1.0)]
    client(workspace).delete_run(run_id)
    with pytest.raises(ValueError, match=f"can't go on with run {run_id} in sqlite.*: it was deleted"):
        engine.run(max_epochs=1)


def test_names_that_mlflow_refuses_are_written_otherwise(workspace: Path) -> None:
    engine, logger = Engine(lambda engine, batch: None), MLflowLogger("names")
    engine.attach(logger)
    engine.add_event_handler(
        Events.STARTED, lambda: logger.log_metrics({"F1 (größe)": 1.0, "nan": float("nan")}, step=1)
    )
    engine.add_event_handler(Events.STARTED, lambda: logger.log_params({"a=b": 1}))
    with pytest.warns(UserWarning, match=r"MLflowLogger: '(F1 \(größe\)|a=b)' is logged as '(F1 _größe_|a_b)'"):
        engine.run(range(1))
    run = client(workspace).get_run(logger.run_id)
    assert run.data.metrics["F1 _größe_"] == 1.0
    assert run.data.metrics["nan"] != run.data.metrics["nan"]
    assert run.data.params["a_b"] == "1"


def test_two_loggers_at_once_keep_apart(workspace: Path) -> None:
    engine = Engine(lambda engine, batch: 1.0)
    loggers = [MLflowLogger("one", every=1), MLflowLogger("two", every=1)]
    engine.attach(*loggers)
    engine.run(range(1))
    assert {curve(workspace, logger.run_id, "train/loss")[0] for logger in loggers} == {(1, 1.0)}
    assert len(all_runs(workspace)) == 2


def test_no_server_at_the_uri_is_an_error_at_once(workspace: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    engine.attach(MLflowLogger(tracking_uri="http://user:secret@127.0.0.1:9"))
    with pytest.raises(
        ConnectionError, match=r"no MLflow server answers at http://127.0.0.1:9 .*refused.*mlflow server"
    ):
        engine.run(range(1))


def test_the_store_of_the_environment_is_used(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    logger = MLflowLogger()
    assert (logger.tracking_uri, logger.experiment) == ("http://127.0.0.1:9", "from the environment")
    assert logger.dashboard_command().endswith("-m webbrowser http://127.0.0.1:9")


def test_a_missing_package_is_told_when_the_logger_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ModuleNotFoundError, match=r'MLflowLogger needs .* mlflow.*: pip install "leyden\[mlflow\]"'):
        MLflowLogger()


def test_importing_the_loggers_imports_no_backend() -> None:
    script = "import sys, leyden.handlers.loggers; print([m for m in sys.modules if m in ('mlflow', 'tensorboardX')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "[]"
