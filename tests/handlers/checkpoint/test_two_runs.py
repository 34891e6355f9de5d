"""Two runs of the same script that are started together in one directory: one trains, the other is told."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from leyden.handlers.checkpoint import verify

SCRIPT = Path(__file__).parent / "scripts" / "kept_run.py"
EPOCHS = 12


def start(directory, log, epochs=EPOCHS):
    command = [sys.executable, str(SCRIPT), str(directory), str(log), str(epochs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def losses(log):
    return [line.split() for line in log.read_text().splitlines()]


def trains(log):
    """Waits until the run has begun."""
    until = time.monotonic() + 60
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < until, f"nothing in {log}"
        time.sleep(0.01)


@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["together", "late"])
def test_the_second_is_told_and_nothing_is_mixed(late, tmp_path) -> None:
    kept = tmp_path / "kept"
    runs = [start(kept, tmp_path / "log0", 300 if late else EPOCHS)]
    if late:
        trains(tmp_path / "log0")
    runs.append(start(kept, tmp_path / "log1"))
    try:
        outputs = [run.communicate(timeout=60)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 1], outputs
    told = codes.index(1)
    if late:
        assert told == 1
    assert "another run writes its checkpoints to" in outputs[told]
    assert f"by process {runs[1 - told].pid}" in outputs[told]
    assert losses(tmp_path / f"log{told}") == []
    done = losses(tmp_path / f"log{1 - told}")
    epochs = 300 if late else EPOCHS
    assert [int(iteration) for iteration, _ in done] == list(range(1, 10 * epochs + 1))
    assert max(verify(path).epoch for path in kept.glob("epoch=*")) == epochs
    # Once that one has ended, the same command goes on from where it came to.
    again = start(kept, tmp_path / "again", epochs + 1)
    output = again.communicate(timeout=60)[0]
    assert again.returncode == 0, output
    assert [int(iteration) for iteration, _ in losses(tmp_path / "again")] == list(
        range(10 * epochs + 1, 10 * epochs + 11)
    )
