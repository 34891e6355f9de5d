"""A process that is killed at any moment, also inside a save, leaves whole checkpoints, from which the run goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leyden.handlers.checkpoint import verify

SCRIPT = Path(__file__).parent / "scripts" / "kept_run.py"


def start(directory, log, epochs):
    return subprocess.Popen([sys.executable, str(SCRIPT), str(directory), str(log), str(epochs)])


def losses(log):
    """Losses by iteration; an iteration that was repeated must have had the same loss each time."""
    found = {}
    for line in log.read_text().splitlines():
        iteration, loss = line.split()
        assert found.setdefault(int(iteration), loss) == loss
    return found


def wait_for_a_new_one(process, directory, before):
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        if {path.name for path in directory.glob("epoch=*")} - before:
            return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint came, the process is at {process.poll()}")


@pytest.mark.parametrize("kills", [5, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_sigkill_at_random_moments(kills, tmp_path) -> None:
    dice = random.Random(kills)
    kept = tmp_path / "kept"
    for _ in range(kills):
        before = {path.name for path in kept.glob("epoch=*")}
        process = start(kept, tmp_path / "log", 100_000)
        try:
            wait_for_a_new_one(process, kept, before)
            time.sleep(dice.uniform(0, 0.1))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        whole = [verify(path) for path in kept.glob("epoch=*")]
        assert len(whole) >= 1
    reached = max(manifest.epoch for manifest in whole) + 1
    assert start(kept, tmp_path / "log", reached).wait(60) == 0
    assert start(tmp_path / "whole", tmp_path / "reference", reached).wait(60) == 0
    assert losses(tmp_path / "log") == losses(tmp_path / "reference")
    assert not [name for name in os.listdir(kept) if name.startswith(".tmp")]
