"""Ignite's EarlyStopping on an evaluator ends the trainer where Ignite's own does."""

import itertools

import pytest

from leyden.contrib.ignite.handlers.early_stopping import EarlyStopping
from leyden.engine import Engine, Events

SCORES = [1.0, 1.05, 1.04, 2.0, 2.0, 2.05, 2.1, 2.15, 1.0, 0.5, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
CASES = [
    {"patience": patience, "threshold": threshold, "threshold_mode": kind, "cumulative": cumulative, "mode": mode}
    for patience, threshold, kind, cumulative, mode in itertools.product(
        (1, 2, 3), (0.0, 0.1), ("abs", "rel"), (False, True), ("max", "min")
    )
]


def epochs_run(engine_class, events, stopper, arguments, scores):
    trainer, evaluator = engine_class(lambda engine, batch: None), engine_class(lambda engine, batch: None)
    series = iter(scores)
    evaluator.add_event_handler(
        events.COMPLETED, stopper(score_function=lambda _: next(series), trainer=trainer, **arguments)
    )
    trainer.add_event_handler(events.EPOCH_COMPLETED, lambda: evaluator.run([0]) and None)
    trainer.run([0], max_epochs=len(scores))
    return trainer.state.epoch


@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_it_ends_where_ignites_does(arguments):
    theirs = pytest.importorskip("ignite.engine")
    stopper = pytest.importorskip("ignite.handlers").EarlyStopping
    for scores in (SCORES, [-score for score in SCORES], SCORES[::-1]):
        expected = epochs_run(theirs.Engine, theirs.Events, stopper, arguments, scores)
        assert epochs_run(Engine, Events, EarlyStopping, arguments, scores) == expected


def test_a_reason_is_printed(capsys):
    assert epochs_run(Engine, Events, EarlyStopping, {"patience": 2}, [1.0, 0.5, 0.5, 0.5]) == 3
    assert capsys.readouterr().out.startswith(
        "EarlyStopping ended the run after epoch 3: the score was not better than 1"
    )


def test_a_score_begins_anew_with_its_engine():
    trainer = Engine(lambda engine, batch: None)
    evaluator = Engine(lambda engine, batch: None)
    stopper = EarlyStopping(2, lambda engine: 1.0, trainer)
    stopper.attach(evaluator, reset_engine=trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]) and None)
    assert trainer.run([0], max_epochs=9).epoch == 3
    trainer.state.max_epochs = None
    assert trainer.run([0], max_epochs=9).epoch == 3
    other = EarlyStopping(2, lambda engine: 1.0, trainer)
    other.load_state_dict(stopper.state_dict())
    assert (other.counter, other.best_score) == (2, 1.0)
