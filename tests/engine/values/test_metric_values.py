"""`state.metrics` is a dict of plain numbers, whatever is put in."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch

from leyden.engine import Engine, MetricValues, State
from leyden.handlers.searching.kept_values import KeptValues


@pytest.fixture
def metrics():
    values = State().metrics
    values["loss"] = torch.tensor(0.5)
    values["accuracy"] = np.float32(0.75)
    values["epochs"] = np.int64(3)
    values["by_class"] = {0: 1.0}
    return values


PLAIN = {"loss": 0.5, "accuracy": 0.75, "epochs": 3, "by_class": {0: 1.0}}


def test_it_can_be_written_as_json(metrics) -> None:
    assert json.dumps(metrics) == '{"loss": 0.5, "accuracy": 0.75, "epochs": 3, "by_class": {"0": 1.0}}'
    assert json.loads(json.dumps(metrics, indent=2)) == {**PLAIN, "by_class": {"0": 1.0}}
    assert json.dumps(State().metrics) == "{}"


@pytest.mark.parametrize(
    "read",
    [
        dict,
        lambda metrics: {**metrics},
        lambda metrics: metrics.copy(),
        lambda metrics: dict(metrics.items()),
        lambda metrics: dict(zip(metrics.keys(), metrics.values(), strict=True)),
        lambda metrics: {} | metrics,
        lambda metrics: metrics | {},
        lambda metrics: {name: metrics.get(name) for name in metrics},
        lambda metrics: {name: metrics.pop(name) for name in list(metrics)},
        lambda metrics: dict(reversed([metrics.popitem() for _ in range(4)])),
        lambda metrics: {name: metrics.setdefault(name, 7.0) for name in list(metrics)},
    ],
)
def test_numbers_come_out_plain(metrics, read) -> None:
    found = read(metrics)
    assert type(found) is dict
    assert sorted(found) == sorted(PLAIN)
    assert found == PLAIN
    assert [type(found[name]) for name in PLAIN] == [float, float, int, dict]


def test_it_is_equal_to_the_dict_of_its_numbers(metrics) -> None:
    assert metrics == PLAIN
    assert metrics == PLAIN
    assert metrics != {**PLAIN, "loss": 0.25}
    assert str(metrics) == str(PLAIN)
    assert isinstance(metrics, dict)
    assert not State().metrics


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda metrics: pickle.loads(pickle.dumps(metrics))])
def test_copies_are_of_their_own(metrics, twin) -> None:
    metrics["loss"] = torch.tensor(0.5)
    other = twin(metrics)
    assert isinstance(other, MetricValues)
    assert other == PLAIN
    assert other.times_set == {"loss": 2, "accuracy": 1, "epochs": 1, "by_class": 1}
    other["loss"] = 1.0
    assert metrics["loss"] == 0.5


def test_what_is_assigned_takes_the_place_of_all() -> None:
    state = State()
    values = state.metrics
    state.metrics["old"] = 1.0
    state.metrics["kept"] = 1.0
    state.metrics = {"kept": torch.tensor(2.0), "new": 3.0}
    assert state.metrics is values  # handlers that hold it see the same
    assert values == {"kept": 2.0, "new": 3.0}
    assert values.times_set == {"old": 1, "kept": 2, "new": 1}
    state.metrics = values
    assert values == {"kept": 2.0, "new": 3.0}
    with pytest.raises(TypeError, match=r"state.metrics is a mapping from names to values, but was to become 3"):
        state.metrics = 3


def test_it_is_joined_in_place() -> None:
    state = State()
    values = state.metrics
    state.metrics |= {"a": np.float64(1.0), "b": 2}
    state.metrics |= [("b", 3)]
    assert state.metrics is values
    assert values == {"a": 1.0, "b": 3}
    assert values.times_set == {"a": 1, "b": 2}
    with pytest.raises(TypeError):
        values | 3


def test_a_handler_may_assign_them_in_a_run() -> None:
    from leyden.engine import Events
    from leyden.metrics import Mean

    engine, seen = Engine(lambda engine, batch: batch), []
    Mean().attach(engine, "mean")
    engine.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "metrics", {"mine": 1.0}))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    state = engine.run([1.0, 3.0], max_epochs=2)
    assert seen == [{"mine": 1.0, "mean": 2.0}] * 2
    assert "metrics" in vars(state)


def test_names_that_are_not_there_are_told(metrics) -> None:
    with pytest.raises(KeyError, match="no metric 'los'; there are: accuracy, by_class, epochs, loss"):
        metrics["los"]
    assert metrics.get("los") is None


def test_a_search_puts_back_what_was_put_in() -> None:
    metrics, tensor = State().metrics, torch.tensor(0.5)
    metrics["loss"] = tensor
    copies = KeptValues()
    copies.keep(metrics)
    metrics["loss"] = 2.0
    metrics["other"] = 1.0
    copies.put_back()
    assert metrics == {"loss": 0.5}
    assert metrics.times_set == {"loss": 1}
    assert dict.__getitem__(metrics, "loss") is tensor


def test_it_goes_backwards_and_gives_what_is_set_by_default():
    metrics = MetricValues(a=1, b=2)
    assert list(reversed(metrics)) == ["b", "a"]
    assert metrics.setdefault("c", torch.tensor(0.5)) == 0.5
    assert type(metrics.setdefault("c", 3)) is float
    assert metrics.times_set == {"a": 1, "b": 1, "c": 1}
