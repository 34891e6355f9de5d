"""The state of an engine: typed, open to what a user sets; metrics come out as plain numbers."""

import copy
import pickle

import pytest
import torch

from leyden.engine import Engine, MetricValues, State


def test_a_fresh_state():
    state = State()
    assert (
        vars(state).items()
        >= {
            "epoch": 0,
            "iteration": 0,
            "step": 0,
            "epoch_length": None,
            "max_epochs": None,
            "max_iters": None,
            "batch": None,
            "output": None,
            "times": {"EPOCH_COMPLETED": None, "COMPLETED": None},
            "dataloader": None,
            "seed": None,
        }.items()
    )
    assert dict(state.metrics) == {}


def test_a_user_may_set_more():
    engine = Engine(lambda engine, batch: setattr(engine.state, "total", engine.state.total + batch))
    engine.state.total = 0
    engine.run([1, 2, 3])
    assert engine.state.total == 6


def test_what_is_not_there_is_told_with_what_is():
    with pytest.raises(AttributeError, match=r"the state has no 'epochs'; it has: .*epoch, epoch_length"):
        State().epochs  # noqa: B018


def test_hasattr_and_getattr_work():
    assert not hasattr(State(), "total")
    assert getattr(State(), "total", 3) == 3


def test_a_state_can_be_copied_and_pickled():
    state = State()
    state.epoch, state.total = 3, 7
    for twin in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert (twin.epoch, twin.total) == (3, 7)


def test_a_state_is_readable():
    state = State()
    state.epoch, state.iteration, state.step = 2, 7, 6
    assert repr(state) == "State(epoch=2, iteration=7, step=6, epoch_length=?)"
    state.epoch_length = 5
    assert repr(state) == "State(epoch=2, iteration=7, step=6, epoch_length=5)"


def test_a_scalar_tensor_comes_out_as_a_number():
    metrics = MetricValues()
    metrics["loss"] = torch.tensor(0.5)
    metrics["hits"] = torch.tensor(3)
    assert (metrics["loss"], metrics["hits"]) == (0.5, 3)
    assert [type(value) for value in metrics.values()] == [float, int]
    assert dict(metrics.items()) == {"loss": 0.5, "hits": 3}
    assert repr(metrics) == "{'loss': 0.5, 'hits': 3}"


def test_the_copy_to_the_host_waits_until_someone_reads():
    metrics = MetricValues()
    value = torch.tensor(1.0)
    metrics["loss"] = value
    value += 1  # only a tensor that was kept as it is shows this
    assert metrics["loss"] == 2.0


def test_what_is_no_scalar_comes_out_as_it_went_in():
    metrics = MetricValues()
    matrix = torch.eye(2)
    metrics.update(matrix=matrix, name="digits", by_class={"a": 1})
    assert metrics["matrix"] is matrix
    assert (metrics["name"], metrics["by_class"]) == ("digits", {"a": 1})


def test_metrics_are_a_mapping():
    metrics = MetricValues()
    metrics["loss"] = 1
    assert ("loss" in metrics, "accuracy" in metrics, len(metrics), list(metrics)) == (True, False, 1, ["loss"])
    assert metrics.get("accuracy") is None
    del metrics["loss"]
    assert len(metrics) == 0


def test_a_missing_metric_is_told_with_those_that_are_there():
    metrics = MetricValues()
    metrics.update(loss=1, accuracy=2)
    with pytest.raises(KeyError, match="no metric 'acuracy'; there are: accuracy, loss"):
        metrics["acuracy"]
