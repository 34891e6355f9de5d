"""What holds for every test: nothing leaves the machine, and many small processes share few cores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Set before torch, mlflow and the processes that tests start read them.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
# One thread a process: models in tests are tiny, and ranks that compete for cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def found_by(tmp_path_factory):
    """A function that runs a script on so many ranks and gives what each found, by rank."""

    def find(script: Path, ranks: int):
        found = tmp_path_factory.mktemp("ranks") / "found.json"
        done = subprocess.run(
            [sys.executable, str(script), str(ranks), str(found)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(found.read_text())

    return find
