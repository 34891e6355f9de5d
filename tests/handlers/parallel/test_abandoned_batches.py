"""An error that all ranks catch costs them the same batch, replicas and shards alike; training goes on after it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "abandoned_batches.py"


def test_ranks_go_on_as_if_the_batch_had_not_been() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = json.loads(done.stdout.splitlines()[-1])
    assert [len(found) for found in ranks] == [8, 8]
    for found in ranks:
        for case, (ours, by_hand) in found.items():
            assert ours == pytest.approx(by_hand, abs=1e-5), case


def test_only_a_batch_that_a_rank_gave_up_and_went_on_from_is_told() -> None:
    script = SCRIPT.with_name("batches_given_up.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    notes = json.loads(done.stdout.splitlines()[-1])
    assert notes["ends its run"] == []
    assert "gave up 0 batches of this run on this rank, and 1 on the others together" in notes["goes on"][0]
