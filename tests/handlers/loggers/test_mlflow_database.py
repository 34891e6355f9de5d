"""The SQLite database that a first run makes: by several processes at once, and with a process that dies meanwhile."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
import mlflow
from leyden.engine import Engine
from leyden.handlers.loggers import MLflowLogger
engine, logger = Engine(lambda engine, batch: 1.0), MLflowLogger("sweep", every=1)
engine.attach(logger)
print("ready", flush=True)
sys.stdin.readline()
engine.run(range(3))
"""


def start(place: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def finished_runs(place: Path) -> int:
    with sqlite3.connect(place / "mlflow.db") as connection:
        (count,) = connection.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()
    return int(count)


def sweep(place: Path) -> None:
    processes = [start(place) for _ in range(4)]
    for process in processes:
        go(process)
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(errors)
    assert finished_runs(place) == 4
    assert [path.name for path in place.iterdir() if path.name.startswith(".mlflow")] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_four_processes_may_begin_at_once(tmp_path: Path) -> None:
    sweep(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_a_process_that_is_stopped_while_it_makes_the_database_leaves_nothing_broken(
    tmp_path: Path, kill: signal.Signals
) -> None:
    process = start(tmp_path)
    go(process)
    deadline = time.monotonic() + 60
    new = tmp_path / f".mlflow.db.new-{process.pid}"
    while not (new.exists() and new.stat().st_size > 0):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(kill)
    process.communicate(timeout=100)
    assert process.returncode != 0
    assert not (tmp_path / "mlflow.db").exists(), "it was stopped in time"
    sweep(tmp_path)
