"""Several updates, of models that the user sharded with fully_shard: each one's backward pass reaches its own alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "sharded_adversaries.py"


def test_ranks_train_as_one_process_would() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for found in json.loads(done.stdout.splitlines()[-1]):
        for case, (ours, theirs) in found.items():
            for model, expected in zip(ours, theirs, strict=True):
                assert model == pytest.approx(expected, abs=1e-5), case
