"""How loaders and other data are dealt. One process plays all ranks, each making its data anew, as processes do."""

from collections import Counter
from itertools import count, islice, zip_longest

import pytest
import torch
from dealing_ranks import batches_of_ranks, deals, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from leyden.engine import Engine
from leyden.handlers.data import CombinedLoader, DeviceTransfer, LimitBatches, Reproducible
from leyden.handlers.parallel.dealing import Deal, deal_data, set_epoch_of_sampler

numbers = st.integers(0, 60)
world_sizes = st.integers(1, 7)


@settings(deadline=None, max_examples=60)
@given(numbers, world_sizes, st.integers(1, 5), st.booleans())
def test_a_loader_evaluates_each_sample_once(total, world_size, batch_size, shuffle):
    shares = batches_of_ranks(
        lambda: DataLoader(range(total), batch_size=batch_size, shuffle=shuffle and total > 0), world_size, even=False
    )
    assert sorted(samples(shares)) == list(range(total))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), world_sizes, st.integers(1, 5), st.booleans(), st.booleans())
def test_a_loader_trains_with_batches_of_the_same_number_and_size_on_all_ranks(
    total, world_size, batch_size, shuffle, drop_last
):
    def make():
        return DataLoader(range(total), batch_size=batch_size, shuffle=shuffle, drop_last=drop_last)

    shares = batches_of_ranks(make, world_size, even=True)
    assert len({tuple(map(len, share)) for share in shares}) == 1
    for deal, share in zip(deals(world_size), shares, strict=True):
        assert len(deal_data(make(), deal)) == len(share)
    if not drop_last:
        counts = Counter(samples(shares))
        assert set(counts) == set(range(total))
        assert sum(counts.values()) == -(-total // world_size) * world_size
    else:
        assert {len(batch) for share in shares for batch in share} <= {batch_size}


@given(st.integers(1, 40), world_sizes)
@settings(deadline=None, max_examples=30)
def test_ranks_take_turns_in_the_order_of_the_sampler(total, world_size):
    """So a global batch of n ranks is the batch of one process with n times the batch size."""
    shares = batches_of_ranks(lambda: DataLoader(range(total), batch_size=2), world_size, even=False)
    for rank, share in enumerate(shares):
        assert samples([share]) == list(range(total))[rank::world_size]


def test_shuffling_is_anew_in_each_epoch_and_the_same_for_the_same_seed():
    def order(epoch, seed=0):
        torch.manual_seed(torch.seed() % 1000)  # what the process drew before plays no part
        return batches_of_ranks(lambda: DataLoader(range(30), batch_size=5, shuffle=True), 3, True, seed, epoch)

    assert order(1) == order(1)
    assert len({str(order(epoch)) for epoch in range(1, 6)}) == 5
    assert order(1) != order(1, seed=1)
    assert order(1) != batches_of_ranks(lambda: DataLoader(range(30), batch_size=5), 3, True)


class WithoutLength(Sampler):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class Stream(IterableDataset):
    def __init__(self, total):
        self.total = total

    def __iter__(self):
        return iter(range(self.total))


TOTAL = 13
DATA = {
    "sequential": lambda: DataLoader(range(TOTAL), batch_size=3),
    "shuffled": lambda: DataLoader(range(TOTAL), batch_size=3, shuffle=True),
    "a sampler": lambda: DataLoader(range(TOTAL), batch_size=3, sampler=SequentialSampler(range(TOTAL))),
    "a sampler without length": lambda: DataLoader(range(TOTAL), batch_size=3, sampler=WithoutLength(range(TOTAL))),
    "a batch sampler": lambda: DataLoader(
        range(TOTAL), batch_sampler=BatchSampler(RandomSampler(range(TOTAL)), 3, False)
    ),
    "a batch sampler of one's own": lambda: DataLoader(
        range(TOTAL), batch_sampler=WithoutLength([[0, 1, 2, 3], [4], [5, 6], [7, 8, 9, 10, 11], [12]])
    ),
    "batch_size=None": lambda: DataLoader(range(TOTAL), batch_size=None),
    "batch_size=None, shuffled": lambda: DataLoader(range(TOTAL), batch_size=None, shuffle=True),
    "an iterable dataset": lambda: DataLoader(Stream(TOTAL), batch_size=3),
    "an iterable dataset without batches": lambda: DataLoader(Stream(TOTAL), batch_size=None),
    "a list": lambda: list(range(TOTAL)),
    "a generator": lambda: (item for item in range(TOTAL)),
}


@pytest.mark.parametrize("world_size", [1, 2, 3, 20])
@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data_is_evaluated_once(kind, world_size):
    shares = batches_of_ranks(DATA[kind], world_size, even=False)
    assert sorted(samples(shares)) == list(range(TOTAL))


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data_gives_ranks_that_train_the_same_number_of_batches(kind, world_size):
    shares = batches_of_ranks(DATA[kind], world_size, even=True)
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) > 0
    assert set(samples(shares)) <= set(range(TOTAL))


@pytest.mark.parametrize("kind", [kind for kind in DATA if kind.startswith(("batch", "a batch", "a samp", "s"))])
def test_a_loader_with_random_access_trains_every_sample(kind):
    assert set(samples(batches_of_ranks(DATA[kind], 5, even=True))) == set(range(TOTAL))


@pytest.mark.parametrize("kind", ["a list", "an iterable dataset", "a generator"])
def test_whole_batches_are_never_trained_twice_and_only_the_last_round_may_be_left_out(kind):
    seen = sorted(samples(batches_of_ranks(DATA[kind], 2, even=True)))
    assert seen == list(range(12))


def test_a_list_with_fewer_batches_than_ranks_is_not_trained_on_in_silence():
    """Nothing would be learnt, in as many epochs as one likes: the batches come again, or an error says it."""
    try:
        shares = batches_of_ranks(lambda: [["a"], ["b"]], 3, even=True)
    except ValueError:
        return
    assert all(len(share) == 1 for share in shares)


def test_weighted_sampling_with_replacement_is_shared_out():
    weights = torch.tensor([1.0, 3.0, 6.0])

    def make():
        return DataLoader(range(3), batch_size=10, sampler=WeightedRandomSampler(weights, 6000))

    shares = batches_of_ranks(make, 3, even=True)
    assert [len(samples([share])) for share in shares] == [2000] * 3
    counts = Counter(samples(shares))
    for item, share in enumerate([0.1, 0.3, 0.6]):
        assert counts[item] / 6000 == pytest.approx(share, abs=0.03)
    assert len({str(share) for share in shares}) == 3  # the ranks drew together, and got different parts


def test_an_endless_sampler_is_dealt_as_it_comes():
    class Endless(Sampler):
        def __iter__(self):
            for i in count():
                assert i < 1000, "an endless sampler was drawn to its end"
                yield i

    shares = [
        [
            batch.tolist()
            for batch in islice(deal_data(DataLoader(range(10**9), batch_size=2, sampler=Endless()), deal), 2)
        ]
        for deal in deals(2)
    ]
    assert shares == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


def test_endless_batches_are_dealt_as_they_come():
    shares = [list(islice(deal_data(count(), deal), 3)) for deal in deals(2)]
    assert shares == [[0, 2, 4], [1, 3, 5]]


def test_a_loader_keeps_its_settings_and_the_user_keeps_the_loader():
    def collate(items):
        return tuple(items)

    loader = DataLoader(range(9), batch_size=2, shuffle=True, collate_fn=collate, drop_last=True, timeout=0)
    sampler, batch_sampler = loader.sampler, loader.batch_sampler
    dealt = deal_data(loader, Deal(0, 2, 0, True))
    assert (loader.sampler, loader.batch_sampler) == (sampler, batch_sampler)
    assert sorted(item for batch in loader for item in batch)[0] in (0, 1)
    assert len(list(loader)) == 4
    assert isinstance(dealt, DataLoader)
    assert (dealt.dataset, dealt.collate_fn, dealt.batch_size, dealt.drop_last) == (range(9), collate, 2, True)
    assert [type(batch) for batch in dealt] == [tuple] * 2


@pytest.mark.slow
def test_a_loader_with_workers():
    def make():
        return DataLoader(range(TOTAL), batch_size=3, shuffle=True, num_workers=1, persistent_workers=True)

    assert sorted(samples(batches_of_ranks(make, 2, even=False))) == list(range(TOTAL))


def test_a_loader_that_is_iterated_already():
    """Its own pass goes on, and the dealt one is a pass of its own."""
    loader = DataLoader(range(4), batch_size=1)
    iterator = iter(loader)
    next(iterator)
    assert [batch.item() for batch in deal_data(loader, Deal(0, 2, 0, True))] == [0, 2]
    assert next(iterator).item() == 1


@pytest.mark.parametrize("kind", DATA)
def test_what_is_dealt_is_not_dealt_again(kind):
    """Two handlers may concern one evaluator."""
    shares = [list(deal_data(deal_data(DATA[kind](), deal), deal)) for deal in deals(2, even=False)]
    once = [list(deal_data(DATA[kind](), deal)) for deal in deals(2, even=False)]
    assert [len(share) for share in shares] == [len(share) for share in once]


def test_no_data_is_no_data():
    assert deal_data(None, Deal(0, 2, 0, True)) is None


# -- a user's own DistributedSampler -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["sampler", "batch sampler"])
def test_a_loader_that_is_dealt_already_is_left_alone_but_told_its_epoch(place):
    sampler = DistributedSampler(range(12), num_replicas=2, rank=1)
    if place == "sampler":
        loader = DataLoader(range(12), batch_size=3, sampler=sampler)
    else:
        loader = DataLoader(range(12), batch_sampler=BatchSampler(sampler, 3, False))
    assert deal_data(loader, Deal(1, 2, 0, True)) is loader
    set_epoch_of_sampler(loader, 4)
    assert sampler.epoch == 4


@pytest.mark.parametrize("where", ["limited", "transferred", "combined", "limited and combined", "reproducible"])
def test_it_is_told_its_epoch_wherever_it_is(where):
    sampler = DistributedSampler(range(12), num_replicas=2, rank=1)
    loader = DataLoader(range(12), batch_size=3, sampler=sampler)
    handlers = {
        "limited": [LimitBatches(2)],
        "transferred": [DeviceTransfer("meta")],
        "combined": [],
        "limited and combined": [LimitBatches(2)],
        "reproducible": [Reproducible()],
    }[where]
    engine = Engine(lambda engine, batch: None)
    engine.attach(*handlers)
    data = engine.data_setup(CombinedLoader({"a": [1, 2], "b": loader}) if "combined" in where else loader)
    set_epoch_of_sampler(data, 4)
    assert sampler.epoch == 4


def test_other_data_is_told_nothing():
    for data in (None, [1, 2], DataLoader(range(3))):
        set_epoch_of_sampler(data, 4)


def test_the_ranks_of_an_uneven_evaluation_differ_by_one_batch_at_most():
    for total in range(1, 20):
        shares = batches_of_ranks(lambda: DataLoader(range(total), batch_size=2), 3, even=False)  # noqa: B023
        rounds = list(zip_longest(*shares))
        assert all(None not in round_of for round_of in rounds[:-1])
