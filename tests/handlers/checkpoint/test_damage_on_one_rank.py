"""What one rank finds damaged of a checkpoint, all pass over, or raise alike; none waits for a time-out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(110)
HOW = {
    "missing": "lacks its file rank-00002.state",
    "altered": "rank-00002.state was altered, or cut short",
    "another's": "rank-00002.state is of another rank or another checkpoint",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of three ranks tells."""
    script = Path(__file__).parent / "scripts" / "damaged_ranks.py"
    base = tmp_path_factory.mktemp("damaged")
    done = subprocess.run([sys.executable, script, base], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", HOW)
def test_the_checkpoint_that_was_asked_for_is_the_same_error_on_all(told, how) -> None:
    for rank in told:
        stood, error, _, seconds = rank[how]["named"]
        assert stood == []
        assert error.startswith("CheckpointDamagedError: ")
        assert HOW[how] in error
        assert seconds < 30


@pytest.mark.parametrize("how", HOW)
def test_of_a_directory_all_take_the_one_before(told, how) -> None:
    assert [rank[how]["auto"][:2] for rank in told] == [[[2], None]] * 3
    first, *others = (rank[how]["auto"][2] for rank in told)
    assert [HOW[how] in each for each in first] == [True]
    assert others == [[], []]


@pytest.mark.parametrize("how", HOW)
def test_where_none_is_whole_all_say_so(told, how) -> None:
    errors = {rank[how]["none"][1] for rank in told}
    assert len(errors) == 1
    (error,) = errors
    assert "no checkpoint in" in error
    assert error.count(HOW[how]) == 2
