"""`predict`: the outputs of an evaluator over all ranks, in the order of the data, each sample once."""

import predicting_cases as cases
import pytest
from predicting_cases import DATA, TOTAL

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    by_kind = [(cases.predicted, kind) for kind in DATA]
    others = (
        cases.predicted_twice_by_an_evaluator_of_a_trainer,
        cases.predicted_by_a_supervised_evaluator,
        cases.dealt_already,
        cases.predicted_from_one_buffer,
        cases.told_of_a_share,
        cases.predicted_from_own_shares,
    )
    return on_two_ranks(*by_kind, *((case,) for case in others))


@pytest.mark.parametrize("kind", DATA)
def test_two_ranks_give_what_one_process_gives_on_both(outcomes, kind):
    alone = cases.predicted(kind)
    samples = [each for output in alone for each in (output if isinstance(output, list) else [output])]
    assert samples == [10 * i for i in range(TOTAL)]
    assert outcomes["predicted", kind] == [alone, alone]


def test_an_evaluator_whose_data_is_dealt_otherwise_in_training(outcomes):
    alone = cases.predicted("a loader")
    assert outcomes["predicted_twice_by_an_evaluator_of_a_trainer"] == [[alone, alone]] * 2


def test_outputs_of_any_kind(outcomes):
    for rank in outcomes["predicted_by_a_supervised_evaluator"]:
        assert rank == {"y": list(range(TOTAL)), "equal": True}


def test_a_loader_that_is_dealt_already_is_refused(outcomes):
    for error in outcomes["dealt_already"]:
        assert "predict deals the batches to the ranks itself" in error


def test_a_step_may_give_the_same_buffer_each_time(outcomes):
    assert cases.predicted_from_one_buffer() == list(range(TOTAL))
    assert outcomes["predicted_from_one_buffer"] == [list(range(TOTAL))] * 2


def test_data_that_may_be_a_share_already_is_told_of(outcomes):
    first, second = outcomes["told_of_a_share"]
    assert len(first) == 1
    assert "predict takes the data (Stream) to be the same on all ranks" in first[0]
    assert second == cases.told_of_a_share() == []


def test_shares_of_the_ranks_own_come_one_after_the_other(outcomes):
    in_order = [*range(0, TOTAL, 2), *range(1, TOTAL, 2)]
    assert outcomes["predicted_from_own_shares"] == [in_order, in_order]
    assert cases.predicted_from_own_shares() == list(range(TOTAL))


def test_another_word_is_told():
    with pytest.raises(ValueError, match='deal="batches" or, where ranks have shares already, "nothing"'):
        cases.predict(cases.identity(), [1], deal="samples")
