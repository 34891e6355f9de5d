"""An example, run as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

TWO_RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
"""What stands between Python and a script for two ranks."""


def command(example: Path, *arguments: str, python: list[str] | None = None) -> list[str]:
    return [sys.executable, *(python or []), str(example), *arguments]


def output_of(example: Path, *arguments: str, python: list[str] | None = None, timeout: float = 220) -> str:
    """What it prints; `python`: arguments of Python's own."""
    process = subprocess.run(
        command(example, *arguments, python=python),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


def figure(output: str, title: str) -> float:
    """The number after that title."""
    found = re.search(rf"^{title}\s+([\d.]+)", output, re.MULTILINE)
    assert found is not None, output
    return float(found[1])
