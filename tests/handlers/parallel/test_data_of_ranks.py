"""What two ranks train on and evaluate, and how they stop together."""

from collections import Counter

import data_cases
import pytest
from data_cases import KINDS, TOTAL

pytestmark = pytest.mark.timeout(115)


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    by_kind = [(function, kind) for function in (data_cases.training, data_cases.evaluation) for kind in KINDS]
    return on_two_ranks(*by_kind, *((case,) for case in data_cases.CASES))


def samples(*shares):
    return [sample for share in shares for batch in share for sample in (batch if isinstance(batch, list) else [batch])]


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_train_the_same_number_of_batches_on_samples_of_their_own(outcomes, kind):
    ours, theirs = outcomes["training", kind]
    assert len(ours) == len(theirs) > 0
    counts = Counter(samples(ours, theirs))
    twice = sum(counts.values()) - len(counts)
    if kind == "a batch sampler of one's own":  # 5 batches: one of them comes again
        assert set(counts) == set(range(TOTAL))
        assert set(map(tuple, ours)) & set(map(tuple, theirs))
    elif kind in ("an iterable dataset", "a list", "a generator"):  # the last round, if it is not full, is left out
        assert twice == 0
        assert len(counts) >= 12
    else:
        assert set(counts) == set(range(TOTAL))
        assert twice == 1


def test_each_epoch_has_an_order_of_its_own(outcomes):
    for epochs in outcomes["three_epochs"]:
        assert list(epochs) == [1, 2, 3]
        assert len({str(batches) for batches in epochs.values()}) == 3
    ours, theirs = outcomes["three_epochs"]
    for epoch in (1, 2, 3):
        assert set(samples(ours[epoch], theirs[epoch])) == set(range(TOTAL))


def test_the_same_seed_gives_the_same_order(outcomes):
    assert outcomes["three_epochs"] == outcomes["three_epochs_again"]
    assert outcomes["three_epochs"] != outcomes["three_epochs_of_another_seed"]


def test_a_restored_run_has_the_orders_of_the_run_without_a_break(outcomes):
    for rank in outcomes["restored"]:
        assert rank["restored"] == {epoch: rank["whole"][epoch] for epoch in (2, 3)}


def test_a_generator_is_gone_through_once_as_in_one_process(outcomes):
    for rank in outcomes["exhausted_generator"]:
        assert rank["events"] == ["epoch_started", *["iteration_completed"] * 2, "epoch_completed", "completed"]
        (warning,) = (each for each in rank["said"] if "exhausted" in each)
        assert "is exhausted after 2 iterations, in epoch 1, before max_epochs=3 is reached" in warning


def test_an_epoch_of_two_passes_sees_each_sample_twice(outcomes):
    ours, theirs = outcomes["epochs_longer_than_the_data"]
    halves = (slice(0, 3), slice(3, 6))
    passes = [samples(rank[epoch][half]) for rank in (ours, theirs) for epoch in (1, 2) for half in halves]
    for first, second in zip(passes[:4], passes[4:], strict=True):
        assert sorted(first + second) == list(range(12))
    assert len({str(each) for each in passes}) == 8


def test_weighted_sampling_with_replacement(outcomes):
    ours, theirs = outcomes["weighted_sampling"]
    assert len(ours) == len(theirs) == 1500
    assert ours != theirs
    counts = Counter(ours + theirs)
    for item, share in enumerate([0.1, 0.3, 0.6]):
        assert counts[item] / 3000 == pytest.approx(share, abs=0.03)


def test_dealing_leaves_the_random_numbers_of_the_steps_alone(outcomes):
    assert outcomes["generators_after_drawing"] == [True, True]


def test_a_distributed_sampler_of_the_users_own_is_left_alone_and_told_its_epoch(outcomes):
    for rank in outcomes["own_distributed_sampler"]:
        assert rank["batches"] == rank["by hand"]
        assert rank["batches"][1] != rank["batches"][2]


@pytest.mark.parametrize("kind", ["list", "generator", "one batch for two ranks"])
def test_data_without_a_batch_is_not_trained_on_in_silence(outcomes, kind):
    for rank in outcomes["empty_data"]:
        assert rank[kind] != []
        if kind != "one batch for two ranks":
            assert "the data of the run is empty" in rank[kind]


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_sample_is_evaluated_once(outcomes, kind):
    ours, theirs = outcomes["evaluation", kind]
    assert sorted(samples(ours, theirs)) == list(range(TOTAL))
    assert ours
    assert theirs


def test_one_sample_for_two_ranks(outcomes):
    assert outcomes["evaluation_of_one_sample"] == [[[[5]], [[5]]], [[], []]]


@pytest.mark.parametrize(
    ("case", "evaluations"),
    [("evaluation_twice_by_one_evaluator", 2), ("evaluation_by_an_evaluator_that_deals_itself", 1)],
)
def test_data_is_dealt_once_however_often_it_is_asked_for(outcomes, case, evaluations):
    ours, theirs = outcomes[case]
    assert len(ours) == len(theirs) == evaluations
    for our_batches, their_batches in zip(ours, theirs, strict=True):
        assert sorted(samples(our_batches, their_batches)) == list(range(TOTAL))


def test_uneven_shards_in_mid_epoch(outcomes):
    ours, theirs = outcomes["evaluation_in_mid_epoch"]
    assert ours == {"iterations": 5, "evaluated": {1: [0, 2, 4] * 2}}
    assert theirs == {"iterations": 5, "evaluated": {1: [1, 3] * 2}}


def test_data_that_can_be_gone_through_only_once(outcomes):
    for rank in outcomes["evaluation_of_exhausted_data"]:
        assert "the data of the run is empty" in rank


@pytest.mark.slow
def test_an_empty_shard_of_an_evaluator_that_was_made_as_any_engine_is(on_two_ranks):
    outcomes = on_two_ranks((data_cases.evaluation_by_an_engine_of_ones_own,))
    assert outcomes["evaluation_by_an_engine_of_ones_own"] == [{1: [[5]]}, {}]


def test_an_evaluator_alone(outcomes):
    assert sorted(samples(*outcomes["an_evaluator_alone"])) == list(range(TOTAL))


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "ends"),
    [("terminated", ["terminate", "completed", "closed"]), ("interrupted", ["interrupt", "closed"])],
)
def test_what_one_rank_wishes_all_do_after_the_same_iteration(outcomes, case, ends):
    ours, theirs = outcomes[case]
    assert ours == theirs
    assert ours["ends"] == ends
    assert 3 <= ours["iterations"] <= 3 + 128


def test_early_stopping_on_one_rank_stops_all(outcomes):
    assert outcomes["early_stopping"] == [3, 3]


def test_all_ranks_know_that_the_numbers_are_lost(outcomes):
    ours, theirs = outcomes["diverged"]
    assert ours["iterations"] == theirs["iterations"] <= 5 + 128
    assert ours["diverged"]
    assert theirs["diverged"]


def test_a_wish_after_the_end_of_a_run_does_not_end_the_next(outcomes):
    assert outcomes["terminated_when_it_was_over"] == [[4, 8, 12]] * 2


def test_engines_that_failed_run_again(outcomes):
    for rank in outcomes["failed_and_run_again"]:
        assert rank["error"] == "lost"
        assert rank["iterations"] == 12
