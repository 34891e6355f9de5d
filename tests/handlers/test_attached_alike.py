"""What communicates, or changes the training, is attached alike on all ranks: else all are told as the run begins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "attached_alike.py"
SOON = 30.0
"""Seconds; the ranks wait twice as long for each other."""

DIFFER = {
    "checkpoint_on_rank_0": ["rank 0 attaches Checkpoint(", "rank 1 does not"],
    "evaluate_on_rank_0": ["rank 0 attaches Evaluate(prefix=val/, ", "rank 1 does not"],
    "early_stopping_on_rank_1": ["rank 1 attaches EarlyStopping(metric=val/accuracy, mode=max", "rank 0 does not"],
    "metric_on_rank_1": ["rank 1 attaches MetricGroup(mean_loss=Mean)", "rank 0 does not"],
    "metrics_of_the_evaluators_differ": ["rank 0 attaches Evaluate(", "loss=Loss", "rank 1 attaches Evaluate("],
    "metrics_of_evaluators_run_by_hand_differ": ["rank 0 attaches MetricGroup(accuracy=Accuracy, loss=Loss)"],
    "other_windows": [
        "rank 0 attaches GradientAccumulation(steps=2,",
        "rank 1 attaches GradientAccumulation(steps=4,",
    ],
    "other_norms": ["rank 0 attaches ClipGradients(norm=1.0,", "rank 1 attaches ClipGradients(norm=2.0,"],
    "other_learning_rates": ["rank 0 attaches SGD(lr=0.1, ", "to 'default', and rank 1 attaches SGD(lr=0.2, "],
    "other_optimizers": ["rank 0 attaches SGD(", "rank 1 attaches Adam("],
    "other_schedulers": ["'step_size': 3,", "rank 1 attaches Schedule(kind=StepLR", "'step_size': 4,"],
    "other_shapes": [
        "rank 0 attaches ParamSchedule(target=lr, shape=['Linear(start=0.1, end=0.0,",
        "rank 1 attaches ParamSchedule(target=lr, shape=['Linear(start=0.2, end=0.0,",
    ],
    "other_limits": ["rank 0 calls run(max_epochs=2), and rank 1 calls run(max_iters=9)"],
    "other_lengths_of_epochs": ["rank 0 calls run(max_epochs=2, epoch_length=3)", "epoch_length=4"],
    "other_numbers_of_batches": ["rank 0 attaches LimitBatches(limit=2), and rank 1 attaches LimitBatches(limit=3)"],
    "other_batches_again_and_again": ["rank 0 attaches Overfit(batches=1), and rank 1 attaches Overfit(batches=2)"],
    "ema_on_rank_1": ["rank 1 attaches EMA(decay=0.9,", "rank 0 does not"],
}
MAY = ["may_differ", "other_order", "other_order_of_a_set", "an_engine_of_one_rank", "independent", "alike_after_all"]

pytestmark = pytest.mark.timeout(110)


def play(ranks, *names):
    done = subprocess.run(
        [sys.executable, SCRIPT, str(ranks), *names], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def seen():
    """What two ranks saw in each case; one pair of processes plays them all."""
    return play(2, *DIFFER, *MAY)


@pytest.mark.parametrize("case", DIFFER)
def test_all_ranks_raise_the_same_error_at_once(seen, case) -> None:
    (soon, error, _, _), (as_soon, same, _, _) = seen[case]
    assert max(soon, as_soon) < SOON
    assert error == same
    assert error.startswith("ValueError: the ranks of a run differ: ")
    for words in (*DIFFER[case], "Attach on every rank, with the same settings", "on rank 0 by itself"):
        assert words in error


@pytest.mark.parametrize("case", MAY)
def test_what_is_one_ranks_own_business_may_differ(seen, case) -> None:
    for _, error, _, value in seen[case]:
        assert error is None
        assert value is not None


@pytest.mark.slow
def test_of_more_ranks_one_of_those_that_differ_is_named() -> None:
    ranks = play(3, "the_last_rank_differs")["the_last_rank_differs"]
    assert len({error for _, error, _, _ in ranks}) == 1
    assert "rank 2 attaches EMA(decay=0.9," in ranks[0][1]
    assert max(seconds for seconds, *_ in ranks) < SOON
