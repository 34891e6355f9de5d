"""A rank that fails takes no other by surprise: the same error on all, at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(110)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    script = Path(__file__).parent / "scripts" / "failing_ranks.py"
    base = tmp_path_factory.mktemp("failing")
    done = subprocess.run([sys.executable, script, base], capture_output=True, text=True, timeout=100, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("case", "error", "rank"),
    [
        ("of a handler", "OSError: no room", 1),
        ("on rank 0", "ValueError: bad", 0),
    ],
)
def test_a_restore_that_fails_on_one_rank_is_the_same_error_on_all(told, case, error, rank):
    outcomes = [each["restores"][case] for each in told]
    assert [outcome[0] for outcome in outcomes] == [error, error]
    assert f"raised on rank {rank}" in outcomes[1 - rank][1]
    assert all(any("in going on from" in note for note in notes) for _, notes, _ in outcomes)


def test_an_error_that_cant_travel_is_told_in_words(told):
    theirs, ours = (each["restores"]["that can't travel"][0] for each in told)
    assert ours == "Unpicklable: a and b"
    assert theirs == "RuntimeError: Unpicklable: a and b"


def test_nobody_waits_for_the_time_out(told):
    assert all(seconds < 30 for each in told for _, _, seconds in each["restores"].values())


def test_ranks_with_different_models_are_refused_at_the_save(told):
    for error, _, _ in (each["other models"] for each in told):
        assert error.startswith("ValueError: the ranks have different models")
        assert (
            "default/model/0.weight is [1, 1] of torch.float32 on rank 0, and [1, 2] of torch.float32 on rank 1"
            in error
        )
