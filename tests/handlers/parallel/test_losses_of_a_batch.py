"""Several backward passes of one batch, under replicas: gradients are exchanged once, as it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "losses_of_a_batch.py"


def test_ranks_train_as_one_process_would() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = json.loads(done.stdout.splitlines()[-1])
    assert [len(found) for found in ranks] == [11, 11]
    for found in ranks:
        for case, (ours, by_hand) in found.items():
            assert ours == pytest.approx(by_hand, abs=2e-3 if case == "scaled" else 1e-5), case
