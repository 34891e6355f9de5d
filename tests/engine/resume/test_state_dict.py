"""What is saved of an engine, and what loading it means."""

import copy
import itertools
import json

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update


class Counting:
    """A handler with a state."""

    def __init__(self):
        self.count = 0

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_one)

    def add_one(self):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]


class Silent:
    """A handler without a state."""

    def attach(self, engine):
        self.engine = engine


@pytest.fixture
def seen():
    return []


@pytest.fixture
def make(seen):
    def make():
        return Engine(lambda engine, batch: seen.append((engine.state.epoch, engine.state.iteration, batch)))

    return make


def test_what_a_state_dict_holds(make):
    engine = make()
    engine.state_dict_user_keys.append("best")
    engine.state.best = 0.5
    engine.state.metrics["loss"] = torch.tensor(2.0)
    engine.state.seed = 17
    engine.attach(Counting(), Silent())
    engine.run("abc", max_epochs=2)
    state = engine.state_dict()
    expected = {
        "epoch": 2,
        "iteration": 6,
        "step": 0,
        "epoch_length": 3,
        "max_epochs": 2,
        "max_iters": None,
        "seed": 17,
    }
    assert state.items() >= expected.items()
    assert state["user"] == {"best": 0.5}
    assert state["metrics"] == {"loss": 2.0}
    assert state["handlers"] == {"Counting": {"count": 6}}
    assert json.loads(json.dumps(state)) == state


def test_everything_is_restored(make):
    engine = make()
    engine.state_dict_user_keys.append("best")
    engine.state.best = 0.5
    engine.state.metrics["loss"] = 2.0
    engine.state.seed = 17
    engine.attach(Counting())
    engine.run("abc", max_epochs=2)
    state = engine.state_dict()

    fresh, handler = make(), Counting()
    fresh.attach(handler)
    fresh.state_dict_user_keys.append("best")
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    assert (fresh.state.best, fresh.state.metrics["loss"], handler.count) == (0.5, 2.0, 6)


def test_a_saved_state_does_not_change_with_the_run(make):
    engine = make()
    engine.state_dict_user_keys.append("history")
    engine.state.history = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: engine.state.history.append(1))
    engine.run("ab", max_epochs=1)
    state = engine.state_dict()
    before = copy.deepcopy(state)
    engine.run("ab", max_epochs=2)
    assert state == before


def test_a_user_key_that_is_not_there_is_told(make):
    engine = make()
    engine.state_dict_user_keys.append("best")
    with pytest.raises(ValueError, match=r"state_dict_user_keys names \['best'\], but the state has: "):
        engine.state_dict()


# -- handlers --------------------------------------------------------------------------------------------


def test_handlers_of_one_class_have_names_of_their_own(make):
    engine = make()
    first, second, third = Counting(), Counting(), Counting()
    engine.attach(first, Silent(), second, third)
    first.count, second.count, third.count = 1, 2, 3
    assert engine.state_dict()["handlers"] == {
        "Counting": {"count": 1},
        "Counting-2": {"count": 2},
        "Counting-3": {"count": 3},
    }


def test_a_state_waits_for_a_handler_that_is_attached_later(make):
    fresh, first, second = make(), Counting(), Counting()
    fresh.attach(first)
    fresh.load_state_dict(
        {"iteration": 0, "handlers": {"Counting": {"count": 4}, "Counting-2": {"count": 5}}, "epoch": 0}
    )
    assert first.count == 4
    fresh.attach(second)
    assert second.count == 5


def test_a_state_without_its_handler_is_no_error(make):
    fresh = make()
    fresh.load_state_dict({"epoch": 0, "iteration": 0, "handlers": {"Gone": {"count": 4}}})
    fresh.run("ab")


def test_attached_handlers_are_found_by_name_and_class(make):
    engine, handler, silent = make(), Counting(), Silent()
    engine.attach(handler, silent)
    assert engine.handlers == {"Counting": handler, "Silent": silent}
    assert engine.find_handlers(Counting) == [handler]


# -- where the run stands --------------------------------------------------------------------------------


def interrupted_at(iteration, make, *args, **kwargs):
    engine = make()
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), engine.interrupt):
        engine.run(*args, **kwargs)
    return json.loads(json.dumps(engine.state_dict()))


def test_a_restored_run_keeps_its_epoch_length(make, seen):
    state = interrupted_at(5, make, "abcde", max_epochs=3, epoch_length=2)
    fresh = make()
    fresh.load_state_dict(state)
    fresh.run("abcde")
    assert seen == [(1, 1, "a"), (1, 2, "b"), (2, 3, "c"), (2, 4, "d"), (3, 5, "e"), (3, 6, "a")]
    assert fresh.state.epoch_length == 2


def run_guarded(engine, *args):
    """A run that is stopped after 100 iterations: an epoch that has lost its length would never end."""
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=100), engine.terminate)
    engine.run(*args)


def test_a_restored_run_over_data_without_end_keeps_its_epoch_length(make, seen):
    state = interrupted_at(3, make, itertools.count(), max_epochs=3, epoch_length=2)
    fresh = make()
    fresh.load_state_dict(state)
    run_guarded(fresh, itertools.count())
    assert seen == [(1, 1, 0), (1, 2, 1), (2, 3, 2), (2, 4, 3), (3, 5, 4), (3, 6, 5)]


def test_a_restored_run_without_data_keeps_its_epoch_length(make, seen):
    state = interrupted_at(3, make, max_epochs=3, epoch_length=2)
    fresh = make()
    fresh.load_state_dict(state)
    run_guarded(fresh)
    assert [place[:2] for place in seen] == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]


def test_the_same_epoch_length_may_be_given_again(make, seen):
    state = interrupted_at(5, make, "abcde", max_epochs=3, epoch_length=2)
    fresh = make()
    fresh.load_state_dict(state)
    fresh.run("abcde", max_epochs=3, epoch_length=2)
    assert [place[:2] for place in seen] == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]


def test_a_pass_over_the_bounds_of_epochs_goes_on_where_it_was(make, seen):
    state = interrupted_at(4, make, "abc", max_epochs=4, epoch_length=2)
    fresh = make()
    fresh.load_state_dict(state)
    fresh.run("abc", epoch_length=2)
    assert "".join(batch for _, _, batch in seen) == "abcabcab"


def test_a_state_may_be_loaded_into_the_engine_it_is_from(make, seen):
    engine = make()
    with engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt):
        engine.run("abc")
    state = engine.state_dict()
    engine.run()
    engine.load_state_dict(state)
    engine.run("abc")
    assert "".join(batch for _, _, batch in seen) == "abc" + "c"


def test_updates_are_restored_with_their_steps():
    def make():
        model = nn.Linear(1, 1)

        def step(engine, batch):
            with update.forward():
                loss = model(batch).sum()
            update.backward(loss)

        engine = Engine(step)
        update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1), name="critic")
        return engine, update

    engine, _ = make()
    engine.run([torch.ones(1, 1)] * 3)
    fresh, update = make()
    fresh.load_state_dict(engine.state_dict())
    assert (fresh.state.step, update.steps) == (3, 3)


def test_a_state_of_an_update_that_is_not_there_is_told(make):
    with pytest.raises(ValueError, match="the state has an update 'critic', but the engine has: none"):
        make().load_state_dict({"epoch": 1, "iteration": 3, "updates": {"critic": {"steps": 3}}})


# -- states of Ignite ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"epoch": 2, "epoch_length": 3, "max_epochs": 3}, [(3, 7, "a"), (3, 8, "b"), (3, 9, "c")]),
        ({"iteration": 6, "epoch_length": 3, "max_epochs": 3}, [(3, 7, "a"), (3, 8, "b"), (3, 9, "c")]),
        ({"iteration": 7, "epoch_length": 3, "max_epochs": 3}, [(3, 8, "b"), (3, 9, "c")]),
        ({"iteration": 7, "epoch_length": 3, "max_iters": 8}, [(3, 8, "b")]),
    ],
    ids=["epoch", "iteration", "iteration in mid-epoch", "max_iters"],
)
def test_a_state_of_counts_alone(state, expected, make, seen):
    fresh = make()
    fresh.load_state_dict(state)
    fresh.run("abc")
    assert seen == expected


def test_a_mapping_that_is_no_state_is_told(make):
    with pytest.raises(ValueError, match=r"this is not the state of an engine: it has \['model'\]"):
        make().load_state_dict({"model": {}})


def test_an_epoch_without_its_length_is_told(make):
    with pytest.raises(ValueError, match="needs the epoch_length"):
        make().load_state_dict({"epoch": 2})


@pytest.mark.parametrize(
    "state",
    [{"model": {}}, {"epoch": 2}, {"epoch": 1, "iteration": 3, "updates": {"critic": {"steps": 3}}}],
    ids=["no state", "no length", "another's update"],
)
def test_a_refused_state_leaves_the_engine_as_it_was(state, make):
    fresh = make()
    before = fresh.state_dict()
    with pytest.raises(ValueError):  # noqa: PT011  # which one is tested above
        fresh.load_state_dict(state)
    assert fresh.state_dict() == before
