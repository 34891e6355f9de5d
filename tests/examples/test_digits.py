"""The main job, run as a user runs it: one process, two ranks, and again after a kill."""

from __future__ import annotations

import os
import runpy
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import torch
from running import TWO_RANKS, command, figure, output_of

from leyden.engine import Engine

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.py"

pytestmark = pytest.mark.timeout(240)


def run_example(runs: Path, python: list[str] | None = None) -> str:
    return output_of(EXAMPLE, "--runs", str(runs), "--epochs", "15", python=python)


def query(runs: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(runs / "mlflow.db") as database:
        return database.execute(sql).fetchall()


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    runs = tmp_path_factory.mktemp("one")
    return runs, run_example(runs)


def test_it_reaches_97_percent_within_a_minute_of_training(one_process: tuple[Path, str]) -> None:
    _, output = one_process
    assert figure(output, "test accuracy") >= 0.97
    assert figure(output, "training time") < 60


def test_it_leaves_one_finished_mlflow_run_with_parameters_and_curves(one_process: tuple[Path, str]) -> None:
    runs, _ = one_process
    assert query(runs, "select status from runs") == [("FINISHED",)]
    parameters = dict(query(runs, "select key, value from params"))
    assert parameters["max_epochs"] == "15"
    points = dict(query(runs, "select key, count(distinct step) from metrics group by key"))
    epochs = points["val/accuracy"]
    assert isinstance(epochs, int)
    assert epochs > 1
    assert points["val/loss"] == epochs
    assert points["train/loss"] == epochs * 47 // 50 + (1 if epochs * 47 % 50 else 0)
    assert {name.split("/")[0] for name in points} == {"train", "val"}


def test_it_leaves_a_tensorboard_file_and_checkpoints(one_process: tuple[Path, str]) -> None:
    runs, output = one_process
    assert len(list((runs / "tensorboard").rglob("events.out.tfevents*"))) == 1
    checkpoints = [folder for folder in (runs / "digits").iterdir() if not folder.name.startswith(".")]
    assert 1 <= len(checkpoints) <= 4
    assert f"sqlite:///{runs}/mlflow.db" in output


@pytest.mark.slow
def test_two_ranks_reach_the_same_and_log_one_run(one_process: tuple[Path, str], tmp_path: Path) -> None:
    output = run_example(tmp_path, TWO_RANKS)
    assert "on 2 process(es)" in output
    assert abs(figure(output, "test accuracy") - figure(one_process[1], "test accuracy")) <= 0.01
    assert query(tmp_path, "select status from runs") == [("FINISHED",)]
    assert len(list((tmp_path / "tensorboard").rglob("events.out.tfevents*"))) == 1


def test_metrics_of_two_uneven_shards_are_those_of_one_process(tmp_path: Path) -> None:
    script = Path(__file__).parent / "scripts" / "evaluate_all_digits.py"
    two_ranks = command(script, str(tmp_path / "seen.pt"), python=TWO_RANKS)
    subprocess.run(two_ranks, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=120)
    seen = torch.load(tmp_path / "seen.pt")
    assert seen["seen"] == [899, 898]

    evaluator = Engine(lambda engine, batch: batch, training=False)
    for name, metric in runpy.run_path(str(script))["make_metrics"]().items():
        metric.attach(evaluator, name)
    alone = evaluator.run([seen["output"]]).metrics
    assert list(seen["metrics"]) == list(alone)
    for name, value in alone.items():
        torch.testing.assert_close(torch.as_tensor(seen["metrics"][name]), torch.as_tensor(value), rtol=1e-6, atol=0)
    assert torch.equal(seen["metrics"]["confusion"], alone["confusion"])
    assert seen["metrics"]["accuracy"] == alone["accuracy"]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    killed = subprocess.Popen(
        command(EXAMPLE, "--runs", str(tmp_path), "--epochs", "15"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "digits").glob("epoch=*"))) < 2:
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no two checkpoints within two minutes"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    last = max(int(path.name.split("=")[1].split("-")[0]) for path in (tmp_path / "digits").glob("epoch=*"))

    output = run_example(tmp_path)
    assert figure(output, "test accuracy") >= 0.97
    epochs = [row[0] for row in query(tmp_path, "select step from metrics where key = 'val/accuracy' order by step")]
    assert len(epochs) == len(set(epochs)), "no epoch is trained twice after the checkpoint that was kept"
    assert query(tmp_path, "select count(*) from runs") == [(1,)]
    assert last >= 2
