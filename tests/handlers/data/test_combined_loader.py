"""Several loaders in one engine."""

import itertools
import pickle
from functools import partial

import pytest
import torch
from random_samples import seen_in
from torch.utils.data import DataLoader

from leyden.engine import CompositeData
from leyden.handlers.data import CombinedLoader, LimitBatches
from leyden.handlers.parallel.dealing import Deal, deal_data


def test_min_size_ends_with_the_shortest():
    loader = CombinedLoader([range(3), range(5)])
    assert list(loader) == [[0, 0], [1, 1], [2, 2]]
    assert len(loader) == 3


def test_max_size_gives_none_for_those_that_have_ended():
    loader = CombinedLoader({"a": range(3), "b": range(5)}, "max_size")
    assert list(loader) == [
        {"a": 0, "b": 0}, {"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": None, "b": 3}, {"a": None, "b": 4},
    ]  # fmt: skip
    assert len(loader) == 5


def test_max_size_cycle_begins_the_shorter_ones_anew():
    loader = CombinedLoader({"a": range(3), "b": range(5)}, mode="max_size_cycle")
    assert [row["a"] for row in loader] == [0, 1, 2, 0, 1]
    assert [row["b"] for row in loader] == [0, 1, 2, 3, 4]
    assert len(loader) == 5


def test_sequential_gives_one_after_the_other_with_its_name():
    assert list(CombinedLoader({"a": range(2), "b": range(1)}, "sequential")) == [("a", 0), ("a", 1), ("b", 0)]
    loader = CombinedLoader([range(2), range(1)], "sequential")
    assert list(loader) == [(0, 0), (0, 1), (1, 0)]
    assert len(loader) == 3


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle", "sequential"])
def test_a_pass_can_be_begun_anew(mode):
    loader = CombinedLoader([range(3), range(5)], mode)
    assert list(loader) == list(loader)


class WithoutLength:
    def __init__(self, total):
        self.total = total
        self.read = 0

    def __iter__(self):
        for i in range(self.total):
            self.read += 1
            yield i


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle", "sequential"])
def test_loaders_without_a_length_give_the_same(mode):
    loader = CombinedLoader([WithoutLength(3), WithoutLength(5)], mode)
    assert list(loader) == list(CombinedLoader([range(3), range(5)], mode))
    with pytest.raises(TypeError):
        len(loader)
    assert len(seen_in(loader, epochs=2)) == 2 * len(CombinedLoader([range(3), range(5)], mode))


def test_an_endless_loader_beside_one_that_ends():
    assert list(CombinedLoader([itertools.count(), range(2)])) == [[0, 0], [1, 1]]


class Sized(WithoutLength):
    def __len__(self):
        return self.total


@pytest.mark.parametrize(("mode", "read"), [("min_size", [3, 3]), ("max_size", [3, 6]), ("max_size_cycle", [6, 6])])
def test_no_batch_is_read_in_vain(mode, read):
    loaders = [Sized(3), Sized(6)]
    list(CombinedLoader(loaders, mode))
    assert [loader.read for loader in loaders] == read


def test_an_engine_trains_on_them_with_and_without_workers():
    def rows(workers):
        data = CombinedLoader(
            {"a": DataLoader(range(6), 2, num_workers=workers), "b": DataLoader(range(4), 1, num_workers=workers)},
            "max_size_cycle",
        )
        return [(row["a"].tolist(), row["b"].tolist()) for row in seen_in(data, epochs=2)]

    assert rows(0) == rows(1) == [([0, 1], [0]), ([2, 3], [1]), ([4, 5], [2]), ([0, 1], [3])] * 2


def test_each_loader_is_changed_by_itself_and_stays_as_it_is():
    loader = CombinedLoader({"a": [1, 2], "b": [3]}, "max_size")
    assert isinstance(loader, CompositeData)
    changed = loader.map_loaders(lambda data: [10 * item for item in data])
    assert list(changed) == [{"a": 10, "b": 30}, {"a": 20, "b": None}]
    assert list(loader) == [{"a": 1, "b": 3}, {"a": 2, "b": None}]
    assert list(CombinedLoader([[1], [2]]).map_loaders(lambda data: data)) == [[1, 2]]


def test_each_loader_is_dealt_to_ranks():
    data = CombinedLoader([DataLoader(range(8), 2), DataLoader(torch.arange(8) * 10, 1)])
    shares = []
    for rank in (0, 1):
        dealt = data.map_loaders(partial(deal_data, deal=Deal(rank, 2, 0, True)))
        shares.append([[batch.tolist() for batch in row] for row in dealt])
    assert shares == [[[[0, 2], [0]], [[4, 6], [20]]], [[[1, 3], [10]], [[5, 7], [30]]]]


def test_a_fraction_of_the_whole():
    assert seen_in(CombinedLoader([range(8), range(4)], "max_size"), LimitBatches(0.25), epochs=1) == [[0, 0], [1, 1]]


def test_it_can_be_pickled():
    assert list(pickle.loads(pickle.dumps(CombinedLoader([range(2), range(2)])))) == [[0, 0], [1, 1]]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_mode_that_is_not_there():
    with pytest.raises(ValueError, match=r"knows the modes min_size, max_size, .* but got 'longest'"):
        CombinedLoader([[1]], "longest")


@pytest.mark.parametrize("loaders", [[], {}])
def test_no_loader(loaders):
    with pytest.raises(ValueError, match="needs at least one loader"):
        CombinedLoader(loaders)


@pytest.mark.parametrize("loaders", [DataLoader(range(3)), "ab", 3])
def test_what_is_no_dict_or_list(loaders):
    with pytest.raises(TypeError, match="takes a dict or a list of loaders, but got a"):
        CombinedLoader(loaders)


def test_nested_ones():
    for inner in ({"c": [1]}, CombinedLoader([[1]])):
        with pytest.raises(TypeError, match=r"'b' is a .*: it can't be nested"):
            CombinedLoader({"a": [1], "b": inner})


@pytest.mark.parametrize("data", [[], iter([1])])
def test_a_loader_that_has_nothing_to_begin_anew_with(data):
    with pytest.raises(ValueError, match=r"begins the loader 'a' .* anew .* but it gave no batch"):
        list(CombinedLoader({"a": data, "b": [1, 2, 3]}, "max_size_cycle"))
