"""A run that is killed in mid-epoch goes on with what all metrics of leyden had seen, on as many ranks or others."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "killed_run.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(ranks, folder, file, stop=0):
    return subprocess.run(
        [sys.executable, SCRIPT, str(ranks), folder, file, str(stop)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def close(value):
    if isinstance(value, dict):
        return {key: close(item) for key, item in value.items()}
    if isinstance(value, list):
        return [close(item) for item in value]
    return pytest.approx(value, rel=1e-12) if isinstance(value, float) else value


def test_the_values_are_those_of_one_process_that_was_never_killed(found_alone, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    expected = close(found_alone(SCRIPT))
    killed = run(2, tmp_path / "killed", tmp_path / "none.json", stop=5)
    assert "rank 0 ended with SIGKILL" in killed.stderr, killed.stderr
    for ranks in (1, 2, 4):
        folder, file = tmp_path / f"on {ranks}", tmp_path / f"on {ranks}.json"
        shutil.copytree(tmp_path / "killed", folder)
        done = run(ranks, folder, file)
        assert done.returncode == 0, done.stderr
        assert "epoch 1, iteration 4" in done.stdout + done.stderr
        found = json.loads(file.read_text())
        assert len(found) == ranks
        for of_rank in found:
            assert of_rank == expected
    print(f"{len(expected)} values equal after a kill on 2 ranks and a start on 1, 2 and 4")
