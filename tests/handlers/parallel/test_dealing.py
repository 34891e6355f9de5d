"""Who gets what of a sequence of items. One process plays all ranks: their shares together are the whole."""

import random
from itertools import count, islice

import numpy
import pytest
import torch
from dealing_ranks import deals
from hypothesis import given
from hypothesis import strategies as st

from leyden.handlers.parallel.dealing import Deal

numbers = st.integers(0, 60)
world_sizes = st.integers(1, 7)
seeds = st.integers(0, 2**62 - 1)


@given(numbers, world_sizes, seeds, st.integers(0, 5))
def test_uneven_shares_are_the_whole_each_item_once(total, world_size, seed, epoch):
    shares = [deal.pick(range(total)) for deal in deals(world_size, seed, even=False)]
    assert sorted(item for share in shares for item in share) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(numbers, world_sizes, seeds)
def test_even_shares_are_the_whole_and_the_first_items_again(total, world_size, seed):
    shares = [deal.pick(range(total)) for deal in deals(world_size, seed, even=True)]
    assert len({len(share) for share in shares}) == 1
    in_order = [item for round_of in zip(*shares, strict=True) for item in round_of]
    padding = -total % world_size if total else 0
    assert in_order == [*range(total), *islice((i % max(total, 1) for i in count()), padding)]


@given(numbers, world_sizes, st.booleans())
def test_the_size_of_a_share_is_known_beforehand(total, world_size, even):
    for deal in deals(world_size, even=even):
        assert deal.count(total) == len(deal.pick(range(total)))


@given(st.integers(2, 5), seeds, st.integers(1, 50))
def test_all_ranks_draw_in_the_same_order_and_an_epoch_begun_again_has_its_order_again(world_size, seed, epoch):
    orders = []
    for deal in deals(world_size, seed):
        deal.set_epoch(epoch)
        orders.append([draw(deal) for _ in range(2)])
        deal.set_epoch(epoch)
        assert draw(deal) == orders[-1][0]
    assert orders.count(orders[0]) == world_size


class Drawing:
    """Yields one tuple with random numbers of each generator; its length of one lets every rank have it."""

    def __iter__(self):
        yield random.random(), numpy.random.random(), torch.rand(()).item()


def draw(deal):
    return deal.pick(Drawing())[0]


@given(seeds, st.integers(0, 100), st.integers(0, 100))
def test_the_order_hangs_on_seed_and_epoch(seed, epoch, other_epoch):
    one, two = Deal(0, 2, seed, True), Deal(0, 2, seed, True)
    one.set_epoch(epoch)
    two.set_epoch(other_epoch)
    assert (draw(one) == draw(two)) == (epoch == other_epoch)
    assert draw(one) != draw(Deal(0, 2, seed + 1, True))


def test_two_passes_in_one_epoch_differ():
    deal = Deal(0, 2, 0, True)
    assert draw(deal) != draw(deal)


@pytest.mark.parametrize("fails", [False, True])
def test_drawing_leaves_the_generators_as_they_were(fails):
    class Fails:
        def __iter__(self):
            yield from Drawing()
            if fails:
                raise ArithmeticError

    def states():
        return random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    try:
        Deal(0, 2, 0, True).pick(Fails())
    except ArithmeticError:
        assert fails
    assert states() == before
