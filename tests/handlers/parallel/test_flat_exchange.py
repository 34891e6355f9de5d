"""Gradients of a batch of several losses are exchanged flat: one collective for all of a dtype, not one for each."""

import pytest
from flat_exchange_cases import dense, reached_by_nobody, sparse, with_option, with_small_buckets

DENSE = [(window, own_head) for window in (1, 3) for own_head in (False, True)]
OPTIONS = ["find_unused_parameters", "gradient_as_bucket_view"]


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    return on_two_ranks(
        *((dense, *case) for case in DENSE),
        *((with_option, each) for each in OPTIONS),
        (with_small_buckets,),
        (reached_by_nobody,),
        (sparse,),
    )


@pytest.mark.parametrize(("window", "own_head"), DENSE)
def test_gradients_have_the_bits_of_an_exchange_by_parameter(outcomes, window, own_head) -> None:
    for _, equal in outcomes["dense", window, own_head]:
        assert equal == [True] * 17


@pytest.mark.parametrize(("window", "own_head"), DENSE)
def test_a_window_takes_one_collective_for_each_dtype(outcomes, window, own_head) -> None:
    assert [collectives for collectives, _ in outcomes["dense", window, own_head]] == [2, 2]


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_the_replicas_change_nothing(outcomes, option) -> None:
    assert outcomes["with_option", option] == [(2, [True] * 17)] * 2


def test_no_flat_copy_is_larger_than_a_bucket(outcomes) -> None:
    """Of 10 bytes: each parameter is larger, and goes by itself."""
    assert outcomes["with_small_buckets"] == [(17, [True] * 17)] * 2


def test_what_no_rank_reaches_stays_as_it_is_in_one_process(outcomes) -> None:
    """Without a gradient an optimizer leaves it alone, its decay too; what one rank reaches all of them train."""
    assert outcomes["reached_by_nobody",] == [[False, False, True, True]] * 2


def test_a_sparse_gradient_is_told(outcomes) -> None:
    for error in outcomes["sparse",]:
        assert error.startswith('update "default" has a sparse gradient, of a parameter of shape (7, 3), which')
        assert "sparse=False" in error
