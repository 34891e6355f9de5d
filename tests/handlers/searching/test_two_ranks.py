"""Searches on several ranks: all find the same, and the run is the one without a search."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(100)]


@pytest.fixture(scope="module")
def outcomes():
    from searching_ranks import run_all

    from leyden import distributed as dist

    return dist.launch(run_all, 2, backend="gloo", timeout=60)


@pytest.mark.parametrize(("mode", "size"), [("power", 8), ("binary", 11)])
def test_the_least_batch_size_holds_for_all(outcomes, mode, size):
    assert [rank[mode] for rank in outcomes] == [(size, size)] * 2


def test_all_ranks_find_one_learning_rate(outcomes):
    (weights, rate), (other_weights, other_rate) = (rank["rate"] for rank in outcomes)
    assert rate == other_rate is not None
    assert weights[0] == other_weights[0]


def test_replicas_train_as_if_there_had_been_no_search(outcomes):
    assert [rank["no trace"][0] for rank in outcomes] == [True, True]
    assert outcomes[0]["no trace"][2] == outcomes[1]["no trace"][2]
