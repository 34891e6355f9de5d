"""A run that was stopped within its last epoch goes on there, as in any other; an evaluation begins anew."""

import contextlib

import pytest

from leyden.engine import Engine, Events
from leyden.handlers import Evaluate
from leyden.metrics import Mean

DATA = ["a", "b", "c"]


def stop_by_terminate(engine):
    engine.terminate()


def stop_by_ctrl_c(engine):
    raise KeyboardInterrupt


def stop_by_an_error(engine):
    raise OSError("no route to host")


STOPS = [stop_by_terminate, stop_by_ctrl_c, stop_by_an_error]


def noting(seen, **options):
    return Engine(lambda engine, batch: seen.append(f"{engine.state.epoch}{batch}"), **options)


def run_until_stopped(engine, stop, at, **limits):
    handle = engine.add_event_handler(Events.ITERATION_COMPLETED(once=at), stop)
    with handle, contextlib.suppress(KeyboardInterrupt, OSError):
        engine.run(DATA, **limits)


@pytest.mark.parametrize("again", [{"max_epochs": 2}, {}], ids=["the same limit", "no limit"])
@pytest.mark.parametrize("stop", STOPS)
def test_it_goes_on_with_the_next_batch(stop, again):
    seen = []
    engine = noting(seen)
    run_until_stopped(engine, stop, at=5, max_epochs=2)
    assert seen == ["1a", "1b", "1c", "2a", "2b"]
    engine.run(DATA, **again)
    assert seen[5:] == ["2c"]
    engine.run(DATA, **again)  # it had come to its end: from the beginning
    assert seen[6:] == ["1a", "1b", "1c", "2a", "2b", "2c"]


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_of_one_epoch_too(stop):
    seen = []
    engine = noting(seen)
    run_until_stopped(engine, stop, at=2)
    engine.run(DATA)
    assert seen == ["1a", "1b", "1c"]


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_of_so_many_iterations_too(stop):
    seen = []
    engine = noting(seen)
    run_until_stopped(engine, stop, at=4, max_iters=5)
    engine.run(DATA, max_iters=5)
    assert seen == ["1a", "1b", "1c", "2a", "2b"]


def test_terminate_before_a_step_of_the_last_epoch():
    seen = []
    engine = noting(seen)
    with engine.add_event_handler(Events.ITERATION_STARTED(once=5), engine.terminate):
        engine.run(DATA, max_epochs=2)
    engine.run(DATA, max_epochs=2)
    assert seen == ["1a", "1b", "1c", "2a", "2b", "2c"]


@pytest.mark.parametrize("stop", STOPS)
def test_an_evaluation_begins_anew(stop):
    seen = []
    evaluator = noting(seen, training=False)
    run_until_stopped(evaluator, stop, at=2)
    evaluator.run(DATA)
    assert seen == ["1a", "1b", "1a", "1b", "1c"]


def test_an_interrupted_evaluation_goes_on():
    seen = []
    evaluator = noting(seen, training=False)
    with evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=2), evaluator.interrupt):
        evaluator.run(DATA)
    evaluator.run(DATA)
    assert seen == ["1a", "1b", "1c"]


@pytest.mark.parametrize("event", [Events.EPOCH_COMPLETED, Events.EPOCH_STARTED, Events.GET_BATCH_STARTED(every=2)])
def test_evaluate_begins_anew_each_time_also_where_the_engine_does_not_say_that_it_evaluates(event):
    means = []
    evaluator = Engine(lambda engine, batch: float(batch))  # an evaluator as Ignite's users make it
    Mean().attach(evaluator, "mean")
    evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=2), evaluator.terminate)
    evaluator.add_event_handler(Events.STARTED, lambda engine: means.append(engine.state.iteration))
    trainer = Engine(lambda engine, batch: None)
    trainer.attach(Evaluate(evaluator, [1, 2, 3, 4], on=event))
    trainer.run(DATA, max_epochs=2)
    assert set(means) == {0}
    assert len(means) >= 2
