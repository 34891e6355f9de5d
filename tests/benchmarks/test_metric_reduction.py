"""The bar of benchmarks/metric_reduction.py is held: 20 metrics are reduced in at most four collectives."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "metric_reduction.py"


@pytest.mark.slow
def test_it_runs_and_holds_its_bar() -> None:
    pytest.importorskip("torchmetrics")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--ranks", "2", "--epochs", "2"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "at most 4 collectives: held" in done.stdout
    apart = re.search(r"the values are at most (\S+) apart", done.stdout)
    assert apart is not None
    assert float(apart[1]) < 1e-5
