"""Where one rank fails, the error of those that wait for it in vain says which failed, and how."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "first_failure.py"

pytestmark = pytest.mark.timeout(110)


def play(case):
    done = subprocess.run([sys.executable, SCRIPT, case], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_rank_that_waits_in_a_step_is_told_which_failed_first() -> None:
    (_, waiting, notes), (_, failed, none) = play("in_a_step")
    assert failed == "ValueError: a bad batch"
    assert waiting is not None
    assert none == []
    assert "rank 1 failed first: ValueError: a bad batch" in notes


def test_a_rank_that_waits_for_a_run_to_begin_is_told_at_once() -> None:
    (seconds, waiting, _), (_, failed, _) = play("before_the_run")
    assert failed.startswith("ValueError: ")
    assert waiting.startswith("RuntimeError: rank 0 waited for the others to begin this run")
    assert f"rank 1 has failed: {failed}" in waiting
    assert seconds < 30.0  # of the 60 that it would wait


@pytest.mark.slow
def test_a_batch_that_one_rank_alone_gave_up_is_told() -> None:
    (_, waiting, notes), _ = play("a_batch_given_up")
    assert waiting is not None
    assert any("gave up 0 batches of this run on this rank, and 1 on the others" in note for note in notes)


@pytest.mark.slow
def test_an_error_of_all_ranks_is_nobodys_first() -> None:
    assert [notes for _, _, notes in play("everywhere")] == [[], []]


@pytest.mark.slow
def test_a_failure_that_was_survived_is_not_told_of_the_next() -> None:
    (_, _, notes), _ = play("again")
    assert [note for note in notes if "failed first" in note] == ["rank 1 failed first: ValueError: a bad batch"]
