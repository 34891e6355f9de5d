"""Metrics written for Ignite, with its decorators, give the value over all ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from leyden.contrib.ignite.metrics.sync import reinit__is_reduced, sync_all_reduce
from leyden.metrics import Mean

SCRIPT = Path(__file__).parent / "scripts" / "ignite_metric_ranks.py"


def test_attributes_are_reduced_while_compute_looks_at_them() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    for rank, found in enumerate(json.loads(done.stdout.splitlines()[-1])):
        assert found["values"] == [{"right": 0.4, "count": 5, "largest": 2.0}] * 2
        assert found["own"] == [2 + rank, 1, 1.0 + rank]


def test_an_unknown_reduction_is_told() -> None:
    with pytest.raises(ValueError, match="sync_all_reduce knows SUM, MAX, MIN and PRODUCT, but got '_sum:MEAN'"):
        sync_all_reduce("_sum:MEAN")


def test_in_one_process_nothing_is_reduced() -> None:
    class Plain(Mean):
        @sync_all_reduce("missing")
        def compute(self):
            return super().compute()

        @reinit__is_reduced
        def reset(self):
            super().reset()

    metric = Plain()
    metric.update(2.0)
    assert metric.compute() == 2
