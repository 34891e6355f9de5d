"""StatefulDataLoader over iterable data whose workers end one after the other: gone on with at every batch."""

import pytest
from passes import end_workers, plain
from torch.utils.data import IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from leyden.engine import Engine, Events

SHARES = ((4,), (4, 5), (1, 7), (7, 3), (4, 1, 4))
"""Samples of each worker."""


class ComesBack(IterableDataset):
    """Each worker counts through its share, and is at the beginning again when it has given its last sample."""

    def __init__(self, shares):
        self.shares = shares
        self.place = 0

    def share(self):
        worker = get_worker_info()
        return (0, sum(self.shares)) if worker is None else (worker.id, self.shares[worker.id])

    def __iter__(self):
        worker, samples = self.share()
        while self.place < samples:
            self.place += 1
            yield 100 * worker + self.place - 1
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class ItsOwnIterator(ComesBack):
    def __iter__(self):
        return self

    def __next__(self):
        worker, samples = self.share()
        if self.place == samples:
            self.place = 0
            raise StopIteration
        self.place += 1
        return 100 * worker + self.place - 1


class IteratorWithState(IterableDataset):
    """The same, where it is the iterator that knows its place."""

    def __init__(self, shares):
        self.shares = shares

    def __iter__(self):
        return ItsOwnIterator(self.shares)


def saved_at_each(make, moments, state=None):
    """Each batch by its epoch, and what was saved at each moment, by the number of batches that were used."""
    data, seen, saved = make(), [], []
    engine = Engine(lambda engine, batch: seen.append((engine.state.epoch, plain(batch))))
    if state is not None:
        engine.load_state_dict(state)
    for moment in moments:
        engine.add_event_handler(moment, lambda: saved.append((engine.state.iteration, engine.state_dict())))
    engine.run(data, max_epochs=2)
    end_workers(data)
    return seen, saved


def check(make):
    moments = [Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED, Events.EPOCH_STARTED(once=2)]
    whole, saved = saved_at_each(make, moments)
    length = sum(epoch == 1 for epoch, _ in whole)
    for used, state in saved[: length + 3]:  # until the first iteration of the second epoch
        at = [Events.GET_BATCH_STARTED(once=used + 1), Events.ITERATION_COMPLETED(once=used + 1)]
        rest, again = saved_at_each(make, at if used < length else [], state)
        assert whole[:used] + rest == whole, f"after {used} batches"
        for used_again, state_again in again:
            assert whole[:used_again] + saved_at_each(make, [], state_again)[0] == whole, f"once more at {used_again}"


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("stay", [False, True], ids=["", "workers stay"])
def test_no_batch_comes_twice(shares, stay):
    check(lambda: StatefulDataLoader(ComesBack(shares), 3, num_workers=len(shares), persistent_workers=stay))


@pytest.mark.parametrize("dataset", [ItsOwnIterator, IteratorWithState])
@pytest.mark.parametrize("stay", [False, True], ids=["", "workers stay"])
def test_nor_where_it_is_an_iterator_that_knows_its_place(dataset, stay):
    check(lambda: StatefulDataLoader(dataset((1, 7)), 3, num_workers=2, persistent_workers=stay))


@pytest.mark.parametrize("batch", [3, 4, 8])
@pytest.mark.parametrize("dataset", [ComesBack, ItsOwnIterator, IteratorWithState])
def test_without_workers(dataset, batch):
    check(lambda: StatefulDataLoader(dataset((8,)), batch))
