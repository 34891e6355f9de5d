"""What each rank has for itself: what it is, how it is shared out among other ranks."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update
from leyden.engine.step.window import merge


class Own:
    """A handler with a state of each rank."""

    def __init__(self, seen=None):
        self.seen = seen
        self.loaded = None

    def attach(self, engine):
        self.engine = engine

    def rank_state_dict(self):
        return {} if self.seen is None else {"seen": self.seen}

    def load_rank_state_dicts(self, states):
        self.loaded = states


def echo():
    return Engine(lambda engine, batch: batch)


def windows(*numbers, weights=None):
    weights = weights or [None] * len(numbers)
    return [
        {"done": 2, "size": 3, "divisor": 3, "weight": weight, "gradients": {"model/weight": torch.tensor([number])}}
        for number, weight in zip(numbers, weights, strict=True)
    ]


def test_a_handlers_own_state_is_apart_from_what_all_share() -> None:
    engine = echo()
    engine.attach(Own(3), Own())
    assert engine.rank_state_dict()["handlers"] == {"Own": {"seen": 3}}
    assert engine.state_dict(own=False)["handlers"] == {}
    assert "own" not in engine.state_dict(own=False)
    assert engine.state_dict()["own"]["state"] == engine.rank_state_dict()


@pytest.mark.parametrize("attached", ["before loading", "after loading"])
def test_it_gets_the_states_of_the_ranks_that_were(attached) -> None:
    fresh, handler = echo(), Own()
    states = [{"handlers": {"Own": {"seen": rank}}} for rank in range(3)]
    if attached == "before loading":
        fresh.attach(handler)
    fresh.load_rank_state_dicts(states)
    if attached == "after loading":
        fresh.attach(handler)
    assert handler.loaded == [{"seen": 0}, {"seen": 1}, {"seen": 2}]


def test_one_that_had_nothing_is_told_so() -> None:
    fresh, handler = echo(), Own()
    fresh.attach(handler)
    fresh.load_rank_state_dicts([{"handlers": {}}])
    assert handler.loaded == [{}]


def test_a_state_of_another_rank_is_not_taken_over() -> None:
    engine, fresh, handler = echo(), echo(), Own()
    engine.attach(Own(3))
    state = engine.state_dict()
    state["own"]["ranks"] = 2
    fresh.attach(handler)
    with pytest.warns(UserWarning, match="rank 0 of 1 was given the state of rank 0 of 2, and leaves out"):
        fresh.load_state_dict(state)
    assert handler.loaded == [{}]


def dealt(windows, ranks):
    """The gradient that each of so many ranks takes; None where it takes none."""
    merged = [merge(windows, rank, ranks, sharded=False) for rank in range(ranks)]
    assert {(each["done"], each["size"]) for each in merged} == {(2, 3)}
    gradients = [each["gradients"].get("model/weight") for each in merged]
    return [None if gradient is None else gradient.item() for gradient in gradients]


def test_what_was_accumulated_is_dealt_to_other_ranks_and_its_mean_over_them_stays() -> None:
    assert dealt(windows(2.0, 4.0), 1) == [3.0]
    assert dealt(windows(2.0, 4.0), 4) == [4.0, 8.0, None, None]  # 12 / 4
    assert dealt(windows(1.0, 2.0, 3.0, 6.0), 2) == [2.0, 4.0]  # (1 + 3, 2 + 6), by 2 instead of 4
    assert dealt(windows(2.0, 4.0, 6.0), 2) == pytest.approx([8.0 * 2 / 3, 4.0 * 2 / 3])


def test_sums_by_weight_keep_their_scale() -> None:
    saved = windows(2.0, 4.0, weights=[torch.tensor(1), torch.tensor(3)])
    assert (dealt(saved, 1), dealt(saved, 4)) == ([6.0], [2.0, 4.0, None, None])
    assert [merge(saved, rank, 4, sharded=False)["weight"] for rank in range(4)] == [1, 3, 0, 0]


def test_of_shards_every_rank_takes_its_part_of_the_mean() -> None:
    for rank in range(4):
        assert merge(windows(2.0, 4.0), rank, 4, sharded=True)["gradients"]["model/weight"].item() == 3.0


def test_a_rank_without_a_gradient_adds_nothing() -> None:
    some = windows(2.0, 4.0)
    some[0]["gradients"] = {}
    assert dealt(some, 2) == [None, 4.0]
    assert merge([{}, {}], 0, 2, sharded=False) == {}


@pytest.mark.parametrize("shape", [(1, 1), (1,)], ids=["fits", "of another model"])
def test_a_window_is_restored_once_the_model_is_ready(shape) -> None:
    model = nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    (window,) = windows(5.0)
    window["gradients"] = {"model/weight": torch.full(shape, 5.0)}
    engine.load_state_dict({"epoch": 0, "iteration": 0})
    engine.load_rank_state_dicts([{"updates": {"default": window}}])
    assert model.weight.grad is None
    assert engine.rank_state_dict()["updates"]["default"]["gradients"].keys() == {"model/weight"}
    found = []
    engine.add_event_handler(Events.STARTED, lambda: found.append((model.weight.grad.item(), model.bias.grad)))
    if shape == (1, 1):
        engine.run([0])
        assert found == [(5.0, None)]
    else:
        with pytest.raises(ValueError, match=r"model/weight of shape \(1,\), but the model has shape \(1, 1\)"):
            engine.run([0])
