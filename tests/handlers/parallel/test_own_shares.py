"""Data that each rank has its own share of already is not dealt again."""

import own_share_cases as cases
import pytest
from own_share_cases import KINDS

pytestmark = pytest.mark.timeout(90)

DEALT_ALREADY = [kind for kind in KINDS if kind not in ("the samplers of torch", "a DistributedSampler of one rank")]
UNKNOWN = ["an iterable dataset", "an iterable dataset with a length", "a list", "a generator"]
RESUMED = ["an iterable dataset", "an iterable dataset with a length", "a list", "a sampler", "a batch sampler"]
UNEVEN = ["a stream", "a stream with a length", "a list", "a generator", "combined", "reproducible"]


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    by_kind = [(f, kind) for f in (cases.own_share_trained, cases.own_share_evaluated) for kind in KINDS]
    others = (
        cases.chosen, cases.an_evaluator_of_another_choice, cases.told_once, cases.mistaken,
        cases.epochs_of_a_sampler_that_has_a_rank,
    )  # fmt: skip
    uneven = [(cases.uneven, kind) for kind in (*UNEVEN, "a stream and nothing")]
    resumed = [(cases.gone_on, kind) for kind in RESUMED]
    return on_two_ranks(*by_kind, *((case,) for case in others), *uneven, *resumed)


@pytest.mark.parametrize("case", ["own_share_trained", "own_share_evaluated"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ranks_together_see_each_sample_once(outcomes, case, kind):
    (ours, our_words), (theirs, their_words) = outcomes[case, kind]
    assert sorted(ours + theirs) == list(range(8))
    assert ours == [0, 2, 4, 6]
    assert their_words == []
    assert len(our_words) == (kind in UNKNOWN)
    if our_words:
        assert "deal='batches'" in our_words[0]
        assert ("trains on" if case == "own_share_trained" else "evaluates") in our_words[0]


def test_a_choice_is_followed_and_nothing_is_said(outcomes):
    ours, theirs = outcomes["chosen"]
    assert ours["samples"] == ours["batches"] == ([0, 2, 4, 6], [])
    assert theirs["samples"] == theirs["batches"] == ([1, 3, 5, 7], [])
    assert ours["nothing"] == theirs["nothing"] == (list(range(8)), [])
    assert sorted(ours["batches of a sampler that has a rank"][0]) == [0, 2, 4, 6]


def test_an_evaluator_may_have_another_choice_than_the_trainer(outcomes):
    assert outcomes["an_evaluator_of_another_choice"] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_what_is_not_dealt_is_told_once_and_on_one_rank(outcomes):
    (words,), nothing = outcomes["told_once"]
    assert "does not deal a DataLoader over ShareOfStream" in words
    assert nothing == []


def test_a_sampler_that_has_a_rank_is_told_its_epoch(outcomes):
    assert outcomes["epochs_of_a_sampler_that_has_a_rank"] == [[1, 2, 3]] * 2


def test_mistakes_are_told_on_each_rank(outcomes):
    for rank, errors in enumerate(outcomes["mistaken"]):
        assert f"deals to rank 5 of 2, but this is rank {rank} of 2" in errors["another rank's"]
        assert "8 to 9 batches" in errors["unlike loaders"]
        assert "deal='nothing'" in errors["unlike loaders"]
        assert "8 to 9 batches" in errors["unlike evaluations"]
        assert "'samples', 'batches', 'nothing'" in errors["no choice"]
        assert "got True" in errors["no choice"]


@pytest.mark.parametrize("kind", UNEVEN)
def test_a_pass_ends_on_all_ranks_where_the_first_rank_s_data_ends(outcomes, kind):
    (our_ends, our_error, our_words), (their_ends, their_error, their_words) = outcomes["uneven", kind]
    assert our_error is their_error is None
    assert our_ends == their_ends == ([4] if kind == "a generator" else [4, 8])
    assert their_words == []
    assert all("1 of 2 ranks ended before" in words for words in our_words)
    assert len(our_words) == 1


def test_a_rank_without_a_batch_is_told_to_all(outcomes):
    for _, error, _ in outcomes["uneven", "a stream and nothing"]:
        assert "empty" in error


@pytest.mark.parametrize("kind", RESUMED)
def test_a_run_goes_on_in_the_midst_of_what_a_rank_has_for_itself(outcomes, kind):
    for joined, straight in outcomes["gone_on", kind]:
        assert joined == straight
        assert [len(batches) for batches in straight.values()] == [4, 4]
