"""Runs that die by SIGKILL and are started again: each point is there, once, wherever that was."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leyden.engine import Engine
from leyden.handlers.loggers import MLflowLogger

from .test_tensorboard_logger import read_curves

SCRIPT = Path(__file__).parent / "scripts" / "killed_run.py"


def client(place: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")


def run(place: Path, first: str, kill_at: int) -> int:
    command = [sys.executable, str(SCRIPT), first, f"sqlite:///{place}/mlflow.db", str(kill_at)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def all_runs(place: Path) -> list[Any]:
    experiment = client(place).get_experiment_by_name("killed")
    return list(client(place).search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("first", ["checkpoint", "logger"])
@pytest.mark.parametrize("kills", [[4, 12], [6, 6, 11]], ids=["at epochs' ends", "in mid-epoch"])
def test_each_point_is_there_once(workspace: Path, first: str, kills: list[int]) -> None:
    for kill_at in kills:
        assert run(workspace, first, kill_at) == -signal.SIGKILL
    assert run(workspace, first, 0) == 0
    (found,) = all_runs(workspace)
    assert found.info.status == "FINISHED"
    history = {
        name: [metric.step for metric in client(workspace).get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
    each = list(range(1, 17))
    expected = {"train/loss": each, "train/lr": each, "train/epoch": each, "val/loss": [4, 8, 12, 16]}
    assert {name: sorted(steps) for name, steps in history.items()} == expected
    shown = {name: sorted(step for step, _ in points) for name, points in read_curves(workspace / "events").items()}
    assert shown == expected


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_run_killed_before_its_first_checkpoint_is_ended_by_the_next(workspace: Path) -> None:
    assert run(workspace, "checkpoint", 2) == -signal.SIGKILL
    assert [found.info.status for found in all_runs(workspace)] == ["RUNNING"]
    assert run(workspace, "checkpoint", 0) == 0
    assert [found.info.status for found in all_runs(workspace)] == ["KILLED", "FINISHED"]


def test_runs_whose_process_lives_are_left_alone(workspace: Path) -> None:
    outer = Engine(lambda engine, batch: None)
    logger = MLflowLogger("killed")
    outer.attach(logger)

    def another_run() -> None:
        inner = Engine(lambda engine, batch: None)
        inner.attach(MLflowLogger("killed"))
        inner.run(range(1))
        assert client(workspace).get_run(logger.run_id).info.status == "RUNNING"

    outer.process = lambda engine, batch: another_run()
    outer.run(range(1))
    assert [found.info.status for found in all_runs(workspace)] == ["FINISHED", "FINISHED"]
