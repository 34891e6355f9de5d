"""Handlers that end a run before its limit."""

import math
import time
import warnings
from datetime import timedelta

import numpy
import pytest
import torch

from leyden.engine import Engine, Events
from leyden.handlers import EarlyStopping, Evaluate, TerminateOnNan, TimeLimit

pytestmark = pytest.mark.timeout(30)


# -- EarlyStopping -----------------------------------------------------------------------------------------------------


def engine_with(values, every=1):
    """An engine whose metric "score" takes the next of the values after each `every`-th epoch."""
    engine = Engine(lambda engine, batch: None)
    engine.declare_metrics("score", "val/accuracy")
    series = iter(values)

    @engine.on(Events.EPOCH_COMPLETED(every=every))
    def measure():
        engine.state.metrics["score"] = next(series)

    return engine


def epochs_run(values, max_epochs=20, **arguments):
    """How many epochs it lets run while the metric takes these values, then the last of them for ever."""
    engine = engine_with([*values, *[values[-1]] * max_epochs])
    engine.attach(EarlyStopping("score", **arguments))
    return engine.run([0], max_epochs=max_epochs).epoch


@pytest.mark.parametrize(
    ("values", "arguments", "epochs"),
    [
        ([1, 2, 3, 4], {"patience": 1}, 5),
        ([1, 2, 3, 4], {"patience": 3}, 7),
        ([1, 2, 3, 4], {}, 7),  # patience 3, max
        ([4, 3, 2, 1], {"patience": 3}, 4),
        ([4, 3, 2, 1], {"patience": 3, "mode": "min"}, 7),
        ([5, 1, 1, 6, 1, 1], {"patience": 3}, 7),  # a better value starts the count anew
        ([5, 5, 5], {"patience": 2}, 3),  # as good is not better
        ([0.0, 0.25, 0.5, 0.75, 1.5], {"patience": 2, "min_delta": 0.5}, 3),
        ([0.0, 0.25, 0.75, 1.0, 1.5], {"patience": 2, "min_delta": 0.5}, 7),  # small gains add up
        ([1.0, 0.9, 0.4], {"patience": 2, "min_delta": 0.5, "mode": "min"}, 5),
        ([-1, -2, -3], {"patience": 1}, 2),  # the first value is the best so far, whatever it is
    ],
    ids=str,
)
def test_the_run_ends_when_nothing_better_has_come(values, arguments, epochs):
    assert epochs_run(values, **arguments) == epochs


def test_a_run_that_gets_better_goes_on():
    assert epochs_run(range(20), patience=1) == 20


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_value_that_is_not_a_number_is_never_better(mode):
    nan = math.nan
    assert epochs_run([nan, nan, nan], patience=3, mode=mode) == 3
    assert epochs_run([nan, 1.0, nan], patience=3, mode=mode) == 5
    sign = 1 if mode == "max" else -1
    assert epochs_run([nan, 1 * sign, nan, 2 * sign, nan, nan], patience=2, mode=mode) == 6


def test_infinity_is_a_number():
    assert epochs_run([math.inf, 3.0, 2.0, 1.0], patience=1, mode="min") == 5
    assert epochs_run([math.inf, math.inf], patience=1, mode="max") == 2


def test_a_tensor_as_the_value():
    assert epochs_run([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(1.0)], patience=1) == 3


def test_epochs_without_a_new_value_do_not_count():
    engine = engine_with([3.0, 2.0, 1.0], every=4)
    engine.attach(EarlyStopping("score", patience=2))
    assert engine.run([0], max_epochs=20).epoch == 12


def test_epochs_before_the_first_value_do_not_count():
    engine = Engine(lambda engine, batch: None)
    evaluator = Engine(lambda engine, batch: None, training=False)
    evaluator.declare_metrics("loss")
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(loss=1.0))
    engine.attach(EarlyStopping("val/loss", patience=1), Evaluate(evaluator, [0], prefix="val/", every=3))
    assert engine.run([0], max_epochs=20).epoch == 6


def test_equal_values_of_two_evaluations_are_two_values():
    engine = engine_with([1.0, 1.0, 1.0])
    engine.attach(EarlyStopping("score", patience=2))
    assert engine.run([0], max_epochs=20).epoch == 3


def test_a_function_of_the_engine_as_the_metric():
    engine = Engine(lambda engine, batch: None)
    engine.attach(EarlyStopping(lambda engine: -abs(engine.state.epoch - 4), mode="max", patience=2))
    assert engine.run([0], max_epochs=20).epoch == 6


def test_what_it_knows_can_be_read_and_is_printed_once(capsys):
    engine = engine_with([1.0, 3.0, 2.0, 2.0])
    handler = EarlyStopping("score", patience=2)
    engine.attach(handler)
    engine.run([0], max_epochs=20)
    assert (handler.best, handler.waited) == (3.0, 2)
    assert capsys.readouterr().out == (
        'EarlyStopping ended the run after epoch 4: "score" was not better than 3 in 2 evaluations (mode="max", '
        "patience=2)\n"
    )


def test_the_run_terminates_as_any_other_does():
    engine = engine_with([1.0, 1.0])
    engine.attach(EarlyStopping("score", patience=1))
    events = []
    for event in (Events.EPOCH_COMPLETED, Events.TERMINATE, Events.COMPLETED, Events.CLOSED):
        engine.add_event_handler(event, events.append, event.value, order=100)
    engine.run([0], max_epochs=20)
    assert events == ["epoch_completed", "epoch_completed", "terminate", "completed", "closed"]


def test_a_run_from_the_beginning_forgets_the_one_before():
    engine = engine_with([9.0, 8.0, 8.0, 1.0, 2.0, 3.0, 3.0, 3.0])
    handler = EarlyStopping("score", patience=2)
    engine.attach(handler)
    assert engine.run([0], max_epochs=20).epoch == 3
    engine.state.max_epochs = None
    assert engine.run([0], max_epochs=20).epoch == 5
    assert handler.best == 3.0


def test_its_state():
    handler = EarlyStopping("score", patience=5)
    engine = engine_with([1.0, 3.0, 2.0])
    engine.attach(handler)
    engine.run([0], max_epochs=3)
    assert engine.state_dict()["handlers"]["EarlyStopping"] == {"best": 3.0, "waited": 1, "times_set": 3}


@pytest.mark.parametrize("attached", ["before loading", "after loading"])
@pytest.mark.parametrize("saved_at", [1, 2, 3, 4])
def test_a_restored_run_stops_where_the_run_without_a_break_stops(saved_at, attached):
    values = [1.0, 3.0, 2.0, 2.0, 2.0, 9.0]
    engine = engine_with(values)
    engine.attach(EarlyStopping("score", patience=3))
    assert engine.run([0], max_epochs=20).epoch == 5

    engine = engine_with(values)
    engine.attach(EarlyStopping("score", patience=3))
    engine.run([0], max_epochs=saved_at)
    state = engine.state_dict()
    engine = engine_with(values[saved_at:])
    if attached == "before loading":
        engine.attach(EarlyStopping("score", patience=3))
    engine.load_state_dict(state)
    if attached == "after loading":
        engine.attach(EarlyStopping("score", patience=3))
    assert engine.run([0], max_epochs=20).epoch == 5


def test_a_restored_value_is_not_a_new_one():
    """Measured each fourth epoch and saved after the fifth: what was restored does not count again."""
    engine = engine_with([3.0], every=4)
    engine.attach(EarlyStopping("score", patience=1))
    engine.run([0], max_epochs=5)
    state = engine.state_dict()
    engine = engine_with([4.0, 4.0], every=4)
    engine.attach(EarlyStopping("score", patience=1))
    engine.load_state_dict(state)
    assert engine.run([0], max_epochs=20).epoch == 12


def test_a_metric_that_will_not_come_up():
    engine = Engine(lambda engine, batch: None)
    engine.declare_metrics("val/loss", "val/accuracy")
    engine.attach(EarlyStopping("val/acuracy", mode="max"))
    with pytest.raises(
        ValueError, match=r'^EarlyStopping watches "val/acuracy", but the engine has: val/accuracy, val/loss'
    ):
        engine.run([0])
    assert engine.state.iteration == 0


def test_a_metric_where_there_is_none():
    engine = Engine(lambda engine, batch: None)
    engine.attach(EarlyStopping("loss"))
    with pytest.raises(ValueError, match='watches "loss", but the engine has: no metric'):
        engine.run([0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "best"}, 'needs mode "max" or "min", but got \'best\''),
        ({"patience": 0}, "needs a patience of at least 1, but got 0"),
        ({"min_delta": -0.1}, r"needs a min_delta of at least 0, but got -0\.1"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=f"EarlyStopping {message}"):
        EarlyStopping("loss", **arguments)


# -- TerminateOnNan ----------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
NOT_FINITE = {
    "number": NAN,
    "infinite": -INF,
    "tensor": torch.tensor([1.0, NAN]),
    "scalar": torch.tensor(INF),
    "half": torch.tensor([65504.0], dtype=torch.float16) * 2,
    "complex tensor": torch.tensor([complex(0, NAN)]),
    "complex number": complex(NAN, 0),
    "number of numpy": numpy.float32(NAN),
    "mapping": {"loss": torch.tensor(1.0), "parts": {"a": 1.0, "b": torch.tensor(NAN)}},
    "sequence": [1.0, (2, torch.tensor([INF]))],
}
FINITE = {
    "number": 1e300,
    "whole": 10**400,
    "truth": True,
    "nothing": None,
    "text": "nan",
    "tensor": torch.tensor([3e38]),
    "labels": torch.tensor([1, 2]),
    "empty": torch.empty(0),
    "complex tensor": torch.tensor([1j]),
    "mapping": {"loss": torch.tensor(1.0), "name": "nan", "parts": [1.0, (2, None)]},
}


@pytest.mark.parametrize("kind", NOT_FINITE)
def test_an_output_that_is_not_finite_ends_the_run(kind):
    outputs = [0.5, 0.25, NOT_FINITE[kind], 0.125]
    engine = Engine(lambda engine, batch: batch)
    engine.attach(TerminateOnNan())
    completed = []
    engine.add_event_handler(Events.COMPLETED, completed.append, 1)
    with pytest.warns(UserWarning, match=r"the output of iteration 3 \(epoch 1\) is not finite: ") as caught:
        state = engine.run(outputs, max_epochs=2)
    assert len(caught) == 1
    assert f"{NOT_FINITE[kind]}" in str(caught[0].message)
    assert "Lower the learning rate" in str(caught[0].message)
    assert state.iteration == 3
    assert state.diverged
    assert completed == [1]


@pytest.mark.parametrize("kind", FINITE)
def test_a_finite_output_goes_on(kind):
    engine = Engine(lambda engine, batch: FINITE[kind])
    engine.attach(TerminateOnNan())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = engine.run([0] * 3)
    assert state.iteration == 3
    assert not state.diverged


def test_a_part_of_the_output():
    engine = Engine(lambda engine, batch: {"loss": 1.0, "note": NAN})
    engine.attach(TerminateOnNan(lambda output: output["loss"]))
    assert engine.run([0] * 3).iteration == 3


def test_only_each_nth_iteration_is_looked_at():
    engine = Engine(lambda engine, batch: batch)
    engine.attach(TerminateOnNan(every=3))
    with pytest.warns(UserWarning, match="iteration 6"):
        state = engine.run([NAN, 1.0, 1.0, NAN, NAN, NAN, NAN])
    assert state.iteration == 6


def test_a_run_from_the_beginning_has_not_diverged():
    engine = Engine(lambda engine, batch: batch)
    engine.attach(TerminateOnNan())
    with pytest.warns(UserWarning, match="not finite"):
        engine.run([1.0, NAN])
    engine.state.max_epochs = None
    state = engine.run([1.0, 1.0])
    assert (state.iteration, state.diverged) == (2, False)


# -- TimeLimit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.2, timedelta(milliseconds=200)], ids=str)
def test_the_run_ends_when_its_time_is_over(limit, capsys):
    engine = Engine(lambda engine, batch: time.sleep(0.01))
    engine.attach(TimeLimit(limit))
    started = time.monotonic()
    state = engine.run(epoch_length=3, max_epochs=1000)
    assert 0.2 <= time.monotonic() - started < 2.0
    assert 0 < state.iteration < 200
    assert capsys.readouterr().out == (
        f"TimeLimit ended the run in epoch {state.epoch}, iteration {state.iteration}: its 0.2 seconds are over\n"
    )


def test_a_run_within_its_time_is_left_alone():
    engine = Engine(lambda engine, batch: None)
    engine.attach(TimeLimit(timedelta(hours=1)))
    assert engine.run([0] * 3, max_epochs=2).iteration == 6


def test_each_run_has_its_own_time():
    engine = Engine(lambda engine, batch: time.sleep(0.01))
    engine.attach(TimeLimit(0.3))
    for epochs in (1, 2, 3):
        assert engine.run([0] * 15, max_epochs=epochs).iteration == 15 * epochs


def test_the_clock_of_a_run_that_is_over_ends_no_later_one():
    engine = Engine(lambda engine, batch: time.sleep(batch))
    limit = TimeLimit(0.2)
    engine.attach(limit)

    def fail():
        raise ArithmeticError

    with engine.add_event_handler(Events.ITERATION_COMPLETED, fail), pytest.raises(ArithmeticError):
        engine.run([0.0])
    limit.seconds = 1000.0
    assert engine.run([0.05] * 8, max_epochs=1).iteration == 8


@pytest.mark.parametrize("limit", [0, -1.0, timedelta(0), math.nan])
def test_a_time_that_is_not_positive(limit):
    with pytest.raises(ValueError, match="TimeLimit needs a positive time, but got"):
        TimeLimit(limit)
