"""DealData, and data of which each rank has a share already: no sample is lost without a word."""

import deal_cases as cases
import pytest

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.handlers import DataParallel, DealData

pytestmark = pytest.mark.timeout(90)

ALL = list(range(cases.TOTAL))


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    return on_two_ranks(
        *((cases.with_random_access, kind) for kind in cases.SHARES),
        *((cases.the_same, kind) for kind in cases.SAME),
        *((cases.a_stream, kind, deal) for kind in cases.STREAMS for deal in (None, "batches")),
        *((cases.predicted, kind) for kind in ("a stream", "a Subset")),
        *((case,) for case in (
            cases.the_same_stream,
            cases.one_fingerprint_that_differs, cases.a_stream_with_workers, cases.another_rank_s_split,
            cases.by_itself, cases.evaluators, cases.restored,
        )),
    )  # fmt: skip


@pytest.mark.parametrize("kind", cases.SHARES)
def test_shares_with_random_access_are_told_and_not_dealt_again(outcomes, kind):
    for told in outcomes["with_random_access", kind]:
        error, _ = told[None]
        assert "hold other samples, as many on each" in error
        assert "say DataParallel(deal='nothing')" in error
    (ours, our_words), (theirs, their_words) = (told[False] for told in outcomes["with_random_access", kind])
    assert sorted(ours + theirs) == ALL
    assert our_words == their_words == []


@pytest.mark.parametrize("kind", cases.SAME)
def test_data_that_is_the_same_on_all_ranks_is_dealt(outcomes, kind):
    (ours, our_words), (theirs, their_words) = outcomes["the_same", kind]
    assert sorted(ours + theirs) == ALL
    assert len(ours) == len(theirs) == 16
    assert our_words == their_words == []


def test_a_fingerprint_that_differs_by_chance_is_no_error_where_samples_are_to_be_dealt(outcomes):
    (ours, _), (theirs, _) = outcomes["one_fingerprint_that_differs"]
    assert sorted(ours + theirs) == ALL


@pytest.mark.parametrize("kind", ["split", "a pipeline"])
def test_a_stream_that_says_that_it_is_split_stays_as_it_is(outcomes, kind):
    (ours, our_words), (theirs, their_words) = outcomes["a_stream", kind, None]
    assert (ours, theirs) == (ALL[::2], ALL[1::2])
    assert our_words == their_words == []
    for error, _ in outcomes["a_stream", kind, "batches"]:
        assert "is split by node already" in error


def test_a_stream_that_asks_for_its_rank_stays_as_it_is_and_a_warning_tells(outcomes):
    for case in (("a_stream", "its own rank", None), "a_stream_with_workers"):
        (ours, our_words), (theirs, their_words) = outcomes[case]
        assert sorted(ours + theirs) == ALL
        assert len(ours) == len(theirs) == 16
        assert len(our_words) == 1
        assert "does not deal a DataLoader over OwnRank" in our_words[0]
        assert their_words == []


def test_ranks_that_read_different_batches_where_they_are_to_read_the_same_are_warned_of_once(outcomes):
    (ours, our_words), (theirs, their_words) = outcomes["a_stream", "its own rank", "batches"]
    assert len(ours) == len(theirs) == 8
    assert len(our_words) == 1
    assert "the ranks read different ones from their OwnRank" in our_words[0]
    assert their_words == []
    assert outcomes["the_same_stream"] == [[], []]


@pytest.mark.parametrize("kind", ["a stream", "a Subset"])
def test_predict_tells_of_shares_too(outcomes, kind):
    for error, predicted in outcomes["predicted", kind]:
        assert 'say deal="nothing", or batches get lost' in error
        assert predicted == ALL


def test_a_stream_that_is_split_for_another_rank_is_an_error(outcomes):
    for rank, (error, _) in enumerate(outcomes["another_rank_s_split"]):
        assert f"is split by node for rank {1 - rank} of 2, but this is rank {rank} of 2" in error


def test_it_deals_by_itself_and_goes_before_what_data_parallel_brings_in_either_order(outcomes):
    ours, theirs = outcomes["by_itself"]
    assert sorted(ours["alone"] + theirs["alone"]) == ALL
    assert len(ours["alone"]) == 16
    for told in (ours, theirs):
        assert told["first"] == told["second"] == ([0, 1, 2, 3], [])


def test_evaluators_get_the_choice_of_the_trainer_unless_they_have_their_own(outcomes):
    ours, theirs = outcomes["evaluators"]
    for name in ("brought", "the user's", "the user's, attached last"):
        assert ours[name] == theirs[name] == list(range(8)), name
    for name in ("the evaluator's", "by DataParallel"):
        assert sorted(ours[name] + theirs[name]) == list(range(8)), name


def test_the_seed_of_the_dealing_is_restored(outcomes):
    assert outcomes["restored"] == [[True, True], [True, True]]


def test_one_process_deals_nothing_and_a_second_one_is_refused():
    engine = Engine(lambda engine, batch: batch)
    engine.attach(DealData("batches"), DataParallel())
    engine.run([1, 2, 3], max_epochs=1)
    assert engine.state.iteration == 3
    assert dist.data_size() == 1
    with pytest.raises(ValueError, match="dealt once"):
        engine.attach(DealData())


@pytest.mark.parametrize("make", [DealData, lambda deal: DataParallel(deal=deal)])
def test_a_choice_that_there_is_not_is_told(make):
    with pytest.raises(ValueError, match="'samples', 'batches', 'nothing', or False, or None, but got True"):
        make(True)
