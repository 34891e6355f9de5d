"""One handler object on two engines would mix what it knows of both."""

import copy
import pickle

import pytest

from leyden.engine import Engine
from leyden.handlers import EarlyStopping, LimitBatches, TerminateOnNan, TimeLimit


def engine():
    return Engine(lambda engine, batch: None)


class Counter:
    def attach(self, engine):
        pass


class Shared(Counter):
    shareable = True


class Single:
    refuses_second_engine = True
    taken = False

    def attach(self, engine):
        if self.taken:
            raise ValueError("one is enough")
        self.taken = True


MAKE = [
    lambda: EarlyStopping("val/loss", mode="min"),
    TerminateOnNan,
    lambda: TimeLimit(3),
    lambda: LimitBatches(2),
    Counter,
]


@pytest.mark.parametrize("make", MAKE)
def test_it_is_told_by_name(make):
    handler, first, second = make(), engine(), engine()
    first.attach(handler)
    with pytest.raises(ValueError, match=f"this {type(handler).__name__} is attached to another engine already"):
        second.attach(handler)
    assert handler not in second.handlers.values()


def test_one_that_says_so_may_serve_several():
    handler = Shared()
    engines = [engine(), engine()]
    for each in engines:
        each.attach(handler)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_another_handler(duplicate):
    handler, first, second = Counter(), engine(), engine()
    first.attach(handler)
    second.attach(duplicate(handler))


def test_one_that_refuses_by_itself_says_it_in_its_own_words():
    handler = Single()
    engine().attach(handler)
    with pytest.raises(ValueError, match="one is enough"):
        engine().attach(handler)
