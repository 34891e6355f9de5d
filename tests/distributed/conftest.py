"""Functions that tests run in started processes live in scripts/, where those processes can import them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))


@pytest.fixture
def torchrun():
    """Run a script of scripts/ under torchrun, with a limit in seconds; everything is ended with the test."""
    started = []

    def run(script, *arguments, nproc=2, options=(), limit=60):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(nproc)]
        process = subprocess.Popen(
            [*launcher, *options, str(SCRIPTS / script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        started.append(process)
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
