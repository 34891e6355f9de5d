"""What is wrong with a stopper is told when it is made, or before the run has cost anything."""

import math
import warnings
from datetime import timedelta

import numpy
import pytest

from leyden.engine import Engine, Events
from leyden.handlers import EarlyStopping, TerminateOnNan, TimeLimit

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("patience", [2.5, 3.0, True, "3", None])
def test_a_patience_is_a_whole_number(patience):
    with pytest.raises(TypeError, match="EarlyStopping takes a patience as a whole number, at least 1, but got"):
        EarlyStopping("loss", patience=patience)


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_is_positive(patience):
    with pytest.raises(ValueError, match=f"EarlyStopping needs a patience of at least 1, but got {patience}"):
        EarlyStopping("loss", patience=patience)


def test_a_whole_number_of_numpy_is_one():
    assert EarlyStopping("loss", patience=numpy.int64(2), min_delta=numpy.float32(0.5)).patience == 2


@pytest.mark.parametrize("min_delta", [math.nan, math.inf, -0.1])
def test_a_min_delta_that_nothing_could_exceed_or_that_is_negative(min_delta):
    with pytest.raises(ValueError, match="EarlyStopping needs a min_delta of at least 0, but got"):
        EarlyStopping("loss", min_delta=min_delta)


@pytest.mark.parametrize("min_delta", ["0", True, None])
def test_a_min_delta_that_is_no_number(min_delta):
    with pytest.raises(TypeError, match="EarlyStopping takes a min_delta as a number"):
        EarlyStopping("loss", min_delta=min_delta)


@pytest.mark.parametrize("metric", [3, None, ["val/loss"]])
def test_what_is_no_metric_is_told_before_training(metric):
    with pytest.raises(TypeError, match="EarlyStopping watches a metric, by its name"):
        EarlyStopping(metric, mode="min")


@pytest.mark.parametrize("value", [{"a": 1.0}, [1.0, 2.0], "0.5", None])
def test_a_value_that_is_no_number_is_named(value):
    engine = Engine(lambda engine, batch: None)
    engine.attach(EarlyStopping(lambda engine: value, mode="max"))
    with pytest.raises(TypeError, match="EarlyStopping compares numbers, but"):
        engine.run([0])


@pytest.mark.parametrize(("patience", "epochs"), [(1, 1), (3, 3)])
def test_a_score_that_is_never_a_number_ends_the_run_with_a_word(patience, epochs, capsys):
    engine = Engine(lambda engine, batch: None)
    engine.attach(EarlyStopping(lambda engine: math.nan, mode="max", patience=patience))
    with pytest.warns(UserWarning, match="was not a number") as told:
        assert engine.run([0], max_epochs=9).epoch == epochs
    assert len(told) == 1
    assert capsys.readouterr().out == ""


def test_nothing_is_printed_where_another_ends_the_run(capsys):
    engine = Engine(lambda engine, batch: None)
    engine.attach(EarlyStopping(lambda engine: engine.state.epoch, mode="max"), TimeLimit(1000))
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=3), engine.terminate)
    assert engine.run([0], max_epochs=9).epoch == 3
    assert capsys.readouterr().out == ""


def test_the_next_run_prints_its_own_end_alone(capsys):
    engine = Engine(lambda engine, batch: None)
    engine.attach(EarlyStopping(lambda engine: -engine.state.epoch, mode="max", patience=2))
    engine.run([0], max_epochs=9)
    assert capsys.readouterr().out.count("EarlyStopping ended the run after epoch 3") == 1
    engine.state.max_epochs = None
    engine.run([0], max_epochs=2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("limit", [math.inf, 1e12, timedelta.max], ids=str)
def test_a_time_that_never_comes(limit):
    with pytest.raises(ValueError, match=r"TimeLimit can't wait for .*; for a run without a limit leave it out"):
        TimeLimit(limit)


@pytest.mark.parametrize("limit", ["60", None, True])
def test_a_time_that_is_none(limit):
    with pytest.raises(TypeError, match="TimeLimit takes seconds or a timedelta, but got"):
        TimeLimit(limit)


def test_a_look_that_is_none():
    with pytest.raises(TypeError, match="TerminateOnNan takes output_transform as a function of the output"):
        TerminateOnNan(3)
    with pytest.raises(TypeError, match="TerminateOnNan takes every as a whole number, at least 1"):
        TerminateOnNan(every=1.5)
    with pytest.raises(ValueError, match="TerminateOnNan needs every of at least 1, but got 0"):
        TerminateOnNan(every=0)


def test_a_healthy_run_on_a_loss_is_not_ended():
    """The loss falls in each epoch; no mode is said."""
    engine = Engine(lambda engine, batch: None)
    engine.declare_metrics("val/loss")

    @engine.on(Events.EPOCH_COMPLETED)
    def measure():
        engine.state.metrics["val/loss"] = 1 / engine.state.epoch

    engine.attach(EarlyStopping("val/loss", patience=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert engine.run([0], max_epochs=10).epoch == 10
