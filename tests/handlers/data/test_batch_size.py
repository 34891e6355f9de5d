"""A loader with another batch size: all else stays, and the user's own loader too."""

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from leyden.handlers.data.batch_size import with_batch_size


def pairs(batch):
    return [(i, 2 * i) for i in batch]


class Numbers(IterableDataset):
    def __iter__(self):
        return iter(range(10))

    def __len__(self):
        return 10


class Named(DataLoader):
    """A user's own kind of loader."""

    def __init__(self, name):
        super().__init__(range(10), batch_size=2)
        self.name = name


def contents(loader):
    return [batch.tolist() for batch in loader]


def test_batches_have_the_new_size_and_the_loader_keeps_its_own():
    loader = DataLoader(range(10), batch_size=2)
    changed = with_batch_size(loader, 4)
    assert contents(changed) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert (changed.batch_size, len(changed)) == (4, 3)
    assert (loader.batch_size, len(loader), contents(loader)[0]) == (2, 5, [0, 1])


def test_it_is_the_loader_made_with_that_size():
    """Also in its random numbers: a shuffling one draws the same order."""
    settings = {"shuffle": True, "drop_last": True}
    made = DataLoader(range(10), batch_size=3, generator=torch.Generator().manual_seed(4), **settings)
    changed = with_batch_size(
        DataLoader(range(10), batch_size=5, generator=torch.Generator().manual_seed(4), **settings), 3
    )
    for _ in range(3):
        assert contents(changed) == contents(made)


def test_settings_are_kept():
    generator = torch.Generator()
    loader = DataLoader(
        range(10), batch_size=2, shuffle=True, drop_last=True, collate_fn=pairs, generator=generator, num_workers=1,
        prefetch_factor=3, persistent_workers=True, worker_init_fn=print, timeout=30.0,
    )  # fmt: skip
    changed = with_batch_size(loader, 4)
    differ = {name for name, value in vars(loader).items() if vars(changed)[name] is not value}
    assert differ == {"batch_size", "batch_sampler"}
    assert changed.batch_sampler.drop_last
    assert len(changed) == 2


@pytest.mark.parametrize(
    "sampler",
    [
        RandomSampler(range(10), replacement=True, num_samples=6),
        SubsetRandomSampler([1, 3, 5, 7, 8, 9]),
        WeightedRandomSampler([1.0] * 10, 6),
        [1, 3, 5, 7, 8, 9],
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_any_sampler_is_kept(sampler):
    changed = with_batch_size(DataLoader(range(10), batch_size=2, sampler=sampler), 4)
    assert changed.sampler is sampler
    assert list(map(len, contents(changed))) == [4, 2]


def test_workers_make_the_batches():
    loader = DataLoader(range(10), batch_size=2, num_workers=1, persistent_workers=True)
    assert len(contents(loader)) == 5  # its workers wait for the next pass
    assert contents(with_batch_size(loader, 5)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert len(contents(loader)) == 5


def test_a_loader_of_a_users_own_class():
    changed = with_batch_size(Named("digits"), 5)
    assert (type(changed), changed.name, len(changed)) == (Named, "digits", 2)


def test_an_iterable_dataset():
    loader = DataLoader(Numbers(), batch_size=2)
    assert len(loader) == 5
    changed = with_batch_size(loader, 4)
    assert contents(changed) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(changed) == 3
    assert contents(with_batch_size(DataLoader(Numbers(), drop_last=True), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_change_may_be_changed_again():
    changed = with_batch_size(with_batch_size(DataLoader(range(10)), 5), 3)
    assert list(map(len, contents(changed))) == [3, 3, 3, 1]


def test_a_loader_that_keeps_its_place():
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    loader = loaders.StatefulDataLoader(range(10), batch_size=2)
    loader.state_dict()  # makes an iterator that waits
    changed = with_batch_size(loader, 3)
    assert contents(changed) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    batches = iter(changed)
    next(batches), next(batches)
    again = with_batch_size(loaders.StatefulDataLoader(range(10), batch_size=2), 3)
    again.load_state_dict(changed.state_dict())
    assert contents(again) == [[6, 7, 8], [9]]
    assert len(contents(loader)) == 5


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_what_is_no_loader():
    with pytest.raises(TypeError, match="only a torch DataLoader's batch size can be changed, but the data is a list"):
        with_batch_size([[1, 2], [3]], 2)


def test_a_batch_sampler_of_the_users_own():
    loader = DataLoader(range(10), batch_sampler=BatchSampler(RandomSampler(range(10)), 2, False))
    with pytest.raises(
        ValueError, match=r"has a batch sampler of its own \(BatchSampler\), which alone says how large"
    ):
        with_batch_size(loader, 4)


def test_a_loader_that_does_not_batch():
    with pytest.raises(ValueError, match=r"does not batch \(batch_size=None\)"):
        with_batch_size(DataLoader(range(10), batch_size=None), 4)


@pytest.mark.parametrize("size", [2.0, "2", True, None])
def test_a_size_that_is_no_whole_number(size):
    with pytest.raises(TypeError, match="a batch size is a whole number, but got "):
        with_batch_size(DataLoader(range(10)), size)


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one(size):
    with pytest.raises(ValueError, match=f"a batch size is at least 1, but got {size}"):
        with_batch_size(DataLoader(range(10)), size)
