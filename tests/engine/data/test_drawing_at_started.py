"""Handlers of STARTED that draw random numbers: a run that goes on has the numbers of the run that never stopped."""

import random

import numpy
import pytest
import torch

from leyden.engine import Engine, Events
from leyden.handlers import Checkpoint, Evaluate, Reproducible


def draw_from_all():
    return random.random(), numpy.random.random(), torch.rand(()).item()


def make(numbers, at_start, *handlers):
    engine = Engine(lambda engine, batch: numbers.append(draw_from_all()))
    engine.add_event_handler(Events.STARTED, lambda: at_start.append(draw_from_all()))
    engine.attach(*handlers)
    return engine


def seed():
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)


def straight(*handlers):
    numbers = []
    seed()
    make(numbers, [], *handlers).run(range(3), max_epochs=2)
    return numbers


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("stop", ["interrupt", "terminate"])
def test_in_the_same_process(stop, at):
    numbers, at_start = [], []
    engine = make(numbers, at_start)
    seed()
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=at), getattr(engine, stop)):
        engine.run(range(3), max_epochs=2)
    engine.run(range(3), max_epochs=2)
    assert len(at_start) == 2
    assert numbers == straight()


@pytest.mark.parametrize("reproducible", [False, True])
def test_from_a_checkpoint(tmp_path, reproducible):
    def attached():
        return [Reproducible(7)] if reproducible else []

    numbers = []

    def run(stops):
        checkpoint = Checkpoint(tmp_path / "run", resume="auto", extra={"nothing": torch.nn.Identity()})
        engine = make(numbers, [], *attached(), checkpoint)
        if stops:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=4), engine.interrupt)
        engine.run(range(3), max_epochs=2)

    seed()
    run(stops=True)
    torch.manual_seed(99)
    run(stops=False)
    assert numbers == straight(*attached())


def test_an_evaluation_at_the_start_draws_nothing_from_the_training(tmp_path):
    data = torch.utils.data.DataLoader(range(4), shuffle=True, generator=torch.Generator().manual_seed(5))

    def make_with_evaluation(numbers, orders):
        evaluator = Engine(lambda engine, batch: orders.append((batch.item(), torch.rand(()).item())), training=False)
        return make(numbers, [], Evaluate(evaluator, data, on=Events.STARTED | Events.EPOCH_COMPLETED))

    wanted, orders_wanted = [], []
    seed()
    make_with_evaluation(wanted, orders_wanted).run(range(3), max_epochs=2)
    data.generator.manual_seed(5)
    numbers, orders = [], []
    seed()
    engine = make_with_evaluation(numbers, orders)
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt):
        engine.run(range(3), max_epochs=2)
    state = engine.state_dict()
    generators = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    other = make_with_evaluation(numbers, orders)
    other.load_state_dict(state)
    random.setstate(generators[0])
    numpy.random.set_state(generators[1])
    torch.set_rng_state(generators[2])
    other.run(range(3), max_epochs=2)
    assert numbers == wanted
    assert orders[:4] + orders[8:] == orders_wanted  # without the one at the start of the run that goes on
