"""Ranks that share their stops: what one decides, all do after the same iteration, and none hangs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "shared_stops.py"
SCENARIOS = [
    "terminate_early",
    "terminate_late",
    "terminate_at_started",
    "terminate_at_epoch_started",
    "terminate_at_epoch_completed",
    "terminate_epoch",
    "interrupt",
    "uneven",
    "terminate_by_the_rank_that_still_works",
    "terminate_after_the_end",
]
LONGEST_DELAY = 128


def play(nproc, *names):
    done = subprocess.run(
        [sys.executable, SCRIPT, str(nproc), *names], capture_output=True, text=True, timeout=45, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=[2, 3], ids=["2 ranks", "3 ranks"])
def seen(request):
    """What the ranks saw in each scenario; one group of processes plays them all."""
    return play(request.param, *SCENARIOS)


pytestmark = pytest.mark.timeout(60)


def test_terminate_by_one_rank_ends_all_after_the_same_iteration(seen):
    ranks = seen["terminate_early"]
    last = ranks[0]["iteration"]
    assert 3 <= last <= 3 + LONGEST_DELAY
    assert [rank["iteration"] for rank in ranks] == [last] * len(ranks)
    assert [rank["story"] for rank in ranks] == [[["TERMINATE", 1, last]]] * len(ranks)


def test_terminate_holds_where_ranks_look_at_each_other_seldom(seen):
    ranks = seen["terminate_late"]
    last = ranks[0]["iteration"]
    assert 700 <= last <= 700 + LONGEST_DELAY
    assert [rank["story"] for rank in ranks] == [[["TERMINATE", 1, last]]] * len(ranks)


def test_terminate_before_the_first_epoch_takes_effect_at_once(seen):
    ranks = seen["terminate_at_started"]
    assert [rank["story"] for rank in ranks] == [[["TERMINATE", 0, 0]]] * len(ranks)


def test_terminate_where_an_epoch_begins_takes_effect_at_once(seen):
    ranks = seen["terminate_at_epoch_started"]
    assert [rank["story"] for rank in ranks] == [[["EPOCH_COMPLETED", 1, 10], ["TERMINATE", 2, 10]]] * len(ranks)


def test_terminate_where_an_epoch_ends_takes_effect_at_once(seen):
    ranks = seen["terminate_at_epoch_completed"]
    expected = [["EPOCH_COMPLETED", 1, 10], ["EPOCH_COMPLETED", 2, 20], ["TERMINATE", 2, 20]]
    assert [rank["story"] for rank in ranks] == [expected] * len(ranks)


def test_terminate_epoch_by_one_rank_ends_the_epoch_of_all(seen):
    ranks = seen["terminate_epoch"]
    ended = ranks[0]["story"][0][2]
    assert 50 <= ended <= 50 + LONGEST_DELAY
    expected = [
        ["TERMINATE_SINGLE_EPOCH", 1, ended],
        ["EPOCH_COMPLETED", 1, ended],
        ["EPOCH_COMPLETED", 2, ended + 400],
    ]
    assert [rank["story"] for rank in ranks] == [expected] * len(ranks)


def test_interrupt_by_one_rank_stops_all_and_all_go_on(seen):
    ranks = seen["interrupt"]
    stopped = ranks[0]["story"][0][2]
    assert 50 <= stopped <= 50 + LONGEST_DELAY
    expected = [["INTERRUPT", 1, stopped], ["EPOCH_COMPLETED", 1, 400], ["EPOCH_COMPLETED", 2, 800]]
    assert [rank["story"] for rank in ranks] == [expected] * len(ranks)


def test_ranks_with_uneven_numbers_of_batches_all_finish(seen):
    for rank, result in enumerate(seen["uneven"]):
        batches = 5 + 40 * rank
        assert result["story"] == [["EPOCH_COMPLETED", 1, batches], ["EPOCH_COMPLETED", 2, 2 * batches]]


def test_a_rank_without_batches_left_hears_the_stop_of_another(seen):
    *idle, busy = seen["terminate_by_the_rank_that_still_works"]
    assert [rank["story"] for rank in idle] == [[["TERMINATE", 1, 5]]] * len(idle)
    assert 20 <= busy["iteration"] <= 20 + LONGEST_DELAY
    assert busy["story"] == [["TERMINATE", 1, busy["iteration"]]]


def test_a_wish_after_the_end_is_forgotten_by_the_next_run(seen):
    for rank in seen["terminate_after_the_end"]:
        assert rank["story"] == [["EPOCH_COMPLETED", 1, 5], ["EPOCH_COMPLETED", 2, 10]]


def test_ranks_that_reach_their_limit_in_different_epochs_all_finish():
    for ranks in play(2, "uneven_under_max_iters", "uneven_exhausted").values():
        assert len({rank["epoch"] for rank in ranks}) == 1
