"""Ranks find the word of their attempt in a store that may still hold those of earlier ones."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from leyden.distributed.environment import RankLayout
from leyden.distributed.meeting import _agree_on_attempt

LONG = timedelta(seconds=20)


def meet(store, rank, size, timeout=LONG):
    return _agree_on_attempt(store, RankLayout(rank, rank, size, size), timeout)


def attempt(store, size, first=()):
    """The word on which each rank of an attempt agrees; those of `first` begin before the others do."""
    with ThreadPoolExecutor(size) as threads:
        early = {rank: threads.submit(meet, store, rank, size) for rank in first}
        for each in early.values():
            with pytest.raises(TimeoutError):
                each.result(0.3)
        words = {rank: threads.submit(meet, store, rank, size) for rank in range(size) if rank not in early}
        return {each.result(30) for each in (*early.values(), *words.values())}


@pytest.fixture
def store():
    return dist.HashStore()


def test_all_ranks_agree_on_one_word_and_on_another_in_the_next_attempt(store) -> None:
    words = [attempt(store, 3) for _ in range(3)]
    assert [len(each) for each in words] == [1, 1, 1]
    assert len(set.union(*words)) == 3


@pytest.mark.parametrize("before", [2, 3, 4])
def test_a_rank_that_reads_the_word_of_a_closed_attempt_waits_for_its_own(before, store) -> None:
    """Also where more ranks, or fewer, took part in that one."""
    (old,) = attempt(store, before)
    (new,) = attempt(store, 3, first=[1, 2])
    assert new != old


def test_the_word_of_a_rank_zero_that_died_is_given_up(store) -> None:
    with ThreadPoolExecutor(2) as threads:
        dead = threads.submit(meet, store, 0, 3, timedelta(seconds=1))
        left = threads.submit(meet, store, 1, 3, timedelta(seconds=1))
        with pytest.raises(RuntimeError, match="waited 1 s for all 3 ranks to join"):
            left.result(30)
        with pytest.raises(dist.DistError):
            dead.result(30)
    assert len(attempt(store, 3, first=[2])) == 1


def test_no_rank_reads_more_among_many(store) -> None:
    class Counting:
        def __init__(self):
            self.calls = 0

        def __getattr__(self, name):
            self.calls += 1
            return getattr(store, name)

    with ThreadPoolExecutor(40) as threads:
        counted = [Counting() for _ in range(40)]
        words = [threads.submit(meet, each, rank, 40) for rank, each in enumerate(counted)]
        assert len({each.result(30) for each in words}) == 1
    assert counted[0].calls == 3
