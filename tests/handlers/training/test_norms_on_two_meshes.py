"""Parameters on two meshes (FSDP x TP, and a norm outside of TP): the norm of the whole, and one overflow for all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "norms_on_two_meshes.py"


@pytest.fixture(scope="module")
def ranks():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["clip", "inf norm", "value"])
def test_clipping_is_that_of_the_whole_model(ranks, case) -> None:
    assert len(ranks) == 4
    for found in ranks:
        sharded, whole = found[case]["sharded"], found[case]["whole"]
        assert sharded["norms"] == pytest.approx(whole["norms"], rel=1e-5)
        assert sharded["weights"] == pytest.approx(whole["weights"], rel=1e-5, abs=1e-6)
        assert sharded["steps"] == 3


def test_an_overflow_on_one_rank_is_one_of_all(ranks) -> None:
    for found in ranks:
        assert found["overflow"]["sharded"]["skipped"] == found["overflow"]["whole"]["skipped"] == [2]
        assert found["overflow"]["sharded"]["steps"] == 2
