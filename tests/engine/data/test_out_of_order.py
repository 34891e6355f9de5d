"""A loader whose batches come as its workers are done with them."""

import pytest
from passes import Indices, end_workers
from torch.utils.data import DataLoader

from leyden.engine import Engine, Events


def make(**settings):
    return DataLoader(Indices(12), 2, num_workers=2, in_order=False, **settings)


def stopped(event, count):
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(event(once=count), engine.interrupt)
    engine.run(make(), max_epochs=2)
    return engine.state_dict()


def resumed(state, data):
    seen = []
    engine = Engine(lambda engine, batch: seen.extend(batch.tolist()))
    engine.load_state_dict(state)
    engine.run(data)
    return seen


def test_a_run_does_not_go_on_in_the_midst_of_its_pass():
    state = stopped(Events.ITERATION_COMPLETED, 3)
    with pytest.raises(ValueError, match=r"DataLoader over Indices with in_order=False.*in_order=True"):
        resumed(state, make())


@pytest.mark.parametrize("settings", [{"num_workers": 2}, {"num_workers": 0}], ids=["in order", "without workers"])
def test_nor_does_it_with_a_loader_in_order(settings):
    state = stopped(Events.ITERATION_COMPLETED, 3)
    with pytest.raises(ValueError, match=r"came in the order in which its workers are done.*epoch's end"):
        resumed(state, DataLoader(Indices(12), 2, **settings))


def test_between_two_passes_it_does():
    assert sorted(resumed(stopped(Events.EPOCH_COMPLETED, 1), make())) == list(range(12))


def test_in_the_same_process_nothing_is_lost():
    loader = make()
    seen = []
    engine = Engine(lambda engine, batch: seen.extend(batch.tolist()))
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), engine.interrupt)
    engine.run(loader, max_epochs=1)
    engine.run(loader)
    end_workers(loader)
    assert sorted(seen) == list(range(12))


def test_without_workers_batches_come_in_order():
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), engine.interrupt)
    engine.run(DataLoader(Indices(12), 2, in_order=False), max_epochs=1)
    assert resumed(engine.state_dict(), DataLoader(Indices(12), 2, in_order=False)) == list(range(6, 12))
