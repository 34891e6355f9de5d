"""A run that is stopped before the step of a batch: the next one begins with this very batch."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from leyden.engine import Engine, Events

BEFORE_STEP = [Events.GET_BATCH_STARTED, Events.GET_BATCH_COMPLETED, Events.ITERATION_STARTED]
STOPS = ["terminate", "interrupt"]


class Noisy(Dataset):
    """Six samples, each with noise from the global generator."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index + torch.rand(()).item()


def engine_that_notes(steps, started=None):
    """An engine that notes each step's iteration, batch and a number drawn in it, and each ITERATION_STARTED."""

    def step(engine, batch):
        steps.append((engine.state.iteration, batch, torch.rand(()).item()))

    engine = Engine(step)
    if started is not None:
        engine.add_event_handler(Events.ITERATION_STARTED, lambda engine: started.append(engine.state.iteration))
    return engine


def in_this_process(engine, *_):
    return engine


def in_another(engine, make):
    state = engine.state_dict()
    generator = torch.get_rng_state()
    other = make()
    other.load_state_dict(state)
    torch.set_rng_state(generator)
    return other


@pytest.mark.parametrize("go_on", [in_this_process, in_another])
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("event", BEFORE_STEP, ids=str)
@pytest.mark.parametrize("at", [1, 4, 5])
def test_each_batch_is_trained_once_with_the_numbers_of_the_run_that_never_stopped(event, stop, go_on, at):
    def data():
        return DataLoader(Noisy(), batch_size=2, shuffle=True, collate_fn=tuple)

    def scale(engine):
        engine.state.batch = tuple(2 * item + torch.rand(()).item() for item in engine.state.batch)

    def make(steps, started, stops):
        engine = engine_that_notes(steps, started)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, scale)
        if stops:
            engine.add_event_handler(event(once=at), getattr(engine, stop))
        return engine

    straight, straight_started = [], []
    torch.manual_seed(3)
    make(straight, straight_started, stops=False).run(data(), max_epochs=2)

    steps, started = [], []
    torch.manual_seed(3)
    engine, loader = make(steps, started, stops=True), data()
    engine.run(loader, max_epochs=2)
    assert (engine.state.iteration, len(steps)) == (at - 1, at - 1)
    went_on = go_on(engine, lambda: make(steps, started, stops=True))
    went_on.run(loader if went_on is engine else data(), max_epochs=2)
    assert went_on.state.iteration == 6
    assert started == straight_started
    assert steps == straight


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("event", BEFORE_STEP, ids=str)
def test_no_item_of_a_one_shot_iterator_is_lost(event, stop):
    steps = []
    engine, data = engine_that_notes(steps), iter("abcdef")
    engine.add_event_handler(event(once=5), getattr(engine, stop))
    engine.run(data, max_epochs=2, epoch_length=3)
    assert engine.state.iteration == 4
    engine.run(data, max_epochs=2, epoch_length=3)
    assert [step[:2] for step in steps] == list(enumerate("abcdef", start=1))


def test_a_batch_that_a_state_cannot_hold_is_loaded_once_more():
    class Graph:
        def __init__(self, name):
            self.name = name

    seen, data = [], [Graph(name) for name in "abc"]
    engine = Engine(lambda engine, batch: seen.append(batch.name))
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), engine.interrupt)
    engine.run(data)
    other = Engine(engine.process)
    other.load_state_dict(engine.state_dict())
    other.run(data)
    assert seen == ["a", "b", "c"]


def test_a_batch_of_other_data_is_not_held():
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    with engine.add_event_handler(Events.ITERATION_STARTED(once=2), engine.interrupt):
        engine.run("abc")
    engine.set_data("xyz")
    engine.run()
    assert seen == ["a", "x", "y"]


def test_a_restarted_run_begins_with_its_first_batch():
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), engine.interrupt)
    engine.run("abc")
    engine.state.max_epochs = None
    engine.remove_event_handler(engine.interrupt, Events.ITERATION_STARTED)
    engine.run("abc")
    assert seen == ["a", "a", "b", "c"]


def test_the_rest_of_an_evaluation_that_was_stopped_before_a_step():
    """The count of samples seen is right, too: the metric of the evaluator sees each batch once."""
    from leyden.metrics import Mean

    evaluator = Engine(lambda engine, batch: float(batch), training=False)
    Mean().attach(evaluator, "mean")
    evaluator.add_event_handler(Events.ITERATION_STARTED(once=3), evaluator.interrupt)
    evaluator.run([1, 2, 3, 6])
    assert evaluator.interrupted
    evaluator.run()
    assert evaluator.state.metrics["mean"] == pytest.approx(3.0)


@pytest.mark.parametrize("event", BEFORE_STEP, ids=str)
def test_who_comes_at_any_moment_lets_the_iteration_finish(event):
    seen = []
    engine = Engine(lambda engine, batch: seen.append(batch))
    engine.add_event_handler(event(once=2), engine.interrupt, after_step=True)
    engine.run("abc")
    assert seen == ["a", "b"]
    engine.add_event_handler(Events.ITERATION_STARTED(once=3), engine.interrupt)
    engine.run("abc")
    assert seen == ["a", "b"]
