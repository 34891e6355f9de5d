"""Frequency tells how many items a second came through."""

import pytest
import torch

from leyden.engine import Engine
from leyden.metrics import Frequency, NotComputableError


class Clock:
    def __init__(self, monkeypatch):
        self.now = 10**15
        monkeypatch.setattr("leyden.metrics.frequency.time.perf_counter_ns", lambda: self.now)

    def passes(self, seconds):
        self.now += int(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_items_a_second_since_the_epoch_began(clock) -> None:
    def step(engine, batch):
        clock.passes(0.5)
        return batch

    engine, seen = Engine(step, training=False), []
    Frequency(lambda output: len(output)).attach(engine, "frequency")
    Frequency(lambda output: output.sum()).attach(engine, "tokens")
    for epoch in (1, 2):
        engine.run([torch.full((4,), 2), torch.full((2,), 3)], max_epochs=epoch)
        seen.append((engine.state.metrics["frequency"], engine.state.metrics["tokens"]))
    assert seen == [(6.0, 14.0)] * 2


def test_what_lies_between_two_runs_does_not_count(clock) -> None:
    before, after = Frequency(), Frequency()
    before.reset()
    clock.passes(1)
    before.update(10)
    clock.passes(100)
    after.load_state_dict(before.state_dict())
    clock.passes(1)
    after.update(torch.tensor(20))
    assert after.compute() == 15


def test_of_several_ranks_the_slowest_counts(clock) -> None:
    ranks = [Frequency(), Frequency()]
    for seconds, rank in enumerate(ranks, start=1):
        rank.reset()
        clock.passes(seconds)
        rank.update(8)
    whole = Frequency()
    whole.load_state_dicts([rank.state_dict() for rank in ranks], first=True)
    assert whole.compute() == 8


def test_what_can_not_be_meant_is_told(clock) -> None:
    with pytest.raises(TypeError, match=r"Frequency counts items, a whole number, but found float 2.5"):
        Frequency().update(2.5)
    with pytest.raises(TypeError, match=r"but found a tuple of 2: .*; give it an output_transform"):
        Frequency().update((torch.rand(3), torch.rand(3)))
    with pytest.raises(NotComputableError, match="has seen no sample"):
        Frequency().compute()
    metric = Frequency()
    metric.update(3)
    with pytest.raises(NotComputableError, match="no time pass"):
        metric.compute()
