"""A compiled model is split at the buckets of its replicas, as under DistributedDataParallel, so that gradients are
exchanged while the backward pass goes on.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "compiled_replicas.py"


def test_graphs_are_as_many_as_under_distributed_data_parallel() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for found in json.loads(done.stdout.splitlines()[-1]):
        assert found["by hand"]["graphs"] > 1
        for case in ("leyden", "whole graph"):
            assert found[case]["graphs"] == found["by hand"]["graphs"]
        assert found["small buckets"]["graphs"] == 1  # torch splits at those of 1 MiB and more alone
        for case in ("leyden", "whole graph", "small buckets"):
            assert found[case]["weights"] == pytest.approx(found["by hand"]["weights"], abs=1e-5)
