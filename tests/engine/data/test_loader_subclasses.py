"""Loaders of a class with an __iter__ of its own."""

import pytest
import torch
from passes import BATCHES, SAMPLES, Buckets, Indices, OwnRandom, differs, stops
from torch.utils.data import DataLoader

from leyden.engine import Engine, Events
from leyden.handlers import Reproducible

quiet = pytest.mark.filterwarnings("ignore:to go on where the run was")


class Moving(DataLoader):
    def __iter__(self):
        for batch in super().__iter__():
            yield batch + 0


class Mapped(DataLoader):
    def __iter__(self):
        return map(torch.clone, super().__iter__())


class Every(DataLoader):
    """Leaves every third batch out."""

    def __iter__(self):
        return (batch for place, batch in enumerate(super().__iter__()) if place % 3 != 1)


KINDS = [Moving, Mapped, Every]
SAMPLERS = [lambda: {"shuffle": True, "batch_size": 3}, lambda: {"sampler": OwnRandom(), "batch_size": 3},
            lambda: {"batch_sampler": Buckets()}]  # fmt: skip


@pytest.mark.parametrize(("kind", "batches"), [(Moving, 4), (Mapped, 4), (Every, 3)])
def test_it_is_iterated_as_it_says(kind, batches):
    assert Engine(lambda engine, batch: None).run(kind(range(8), 2, shuffle=True), max_epochs=1).iteration == batches


@quiet
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS[:2])
def test_it_goes_on_at_its_very_batch(kind, sampler):
    batches = 5 if kind is Every else BATCHES
    wrong = {stop: differs(lambda: kind(Indices(), **sampler()), stop) for stop in stops(None, batches)}
    assert {stop: found for stop, found in wrong.items() if found is not None} == {}


@quiet
@pytest.mark.parametrize("kind", [Moving, Mapped])
def test_with_workers_that_stay(kind):
    def make():
        return kind(Indices(), 3, shuffle=True, num_workers=2, persistent_workers=True)

    for stop in stops(None)[1:6:2]:
        assert differs(make, stop) is None


@quiet
@pytest.mark.parametrize("kind", [Moving, Mapped])
def test_under_reproducible_two_runs_are_alike(kind):
    class Noisy(Indices):
        def __getitem__(self, index):
            return index + torch.rand(()).item()

    def seen():
        batches = []
        engine = Engine(lambda engine, batch: batches.extend(batch.tolist()))
        engine.attach(Reproducible(1))
        engine.run(kind(Noisy(), 3, shuffle=True), max_epochs=2)
        return batches

    first = seen()
    torch.rand(3)
    assert first == seen()
    assert sorted(map(int, first[:SAMPLES])) == list(range(SAMPLES))
    assert first[:SAMPLES] != first[SAMPLES:]


@quiet
def test_what_is_left_of_it_cannot_be_dealt_to_another_number_of_ranks():
    engine = Engine(lambda engine, batch: None)
    handle = engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), engine.interrupt)
    engine.run(Moving(Indices(), 3, shuffle=True), max_epochs=1)
    handle.remove()
    state = engine.state_dict()
    state["own"]["state"]["data"]["ranks"] = 2
    engine.load_state_dict(state)
    with pytest.raises(ValueError, match=r"Moving has an __iter__ of its own.*2 ranks"):
        engine.run(Moving(Indices(), 3, shuffle=True))
