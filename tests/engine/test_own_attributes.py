"""What can be set on an engine and its state, and what is told instead of being ignored."""

from typing import Any

import pytest

from leyden.engine import Engine, Events


def test_the_data_are_not_exchanged_through_the_state():
    engine = Engine(lambda engine, batch: None)
    errors = []

    @engine.on(Events.EPOCH_COMPLETED(once=1))
    def exchange(engine):
        with pytest.raises(AttributeError, match=r"engine\.set_data\(data\)") as caught:
            engine.state.dataloader = [7, 8]
        errors.append(caught)

    data = [1, 2]
    engine.run(data)
    assert len(errors) == 1
    assert engine.state.dataloader is data


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("shoud_terminate", "did you mean 'should_terminate'"),
        ("terminated", "did you mean 'terminate'"),
        ("best_accuracy", r"engine\.state\.best_accuracy"),
    ],
)
def test_an_attribute_that_an_engine_does_not_have_is_not_set_by_mistake(name, advice):
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(AttributeError, match=f"an engine has no attribute '{name}' to set.*{advice}"):
        setattr(engine, name, True)


def test_what_an_engine_has_can_be_set():
    engine = Engine(lambda engine, batch: None)
    engine.training = False
    engine.process = lambda engine, batch: batch
    engine.run = lambda: "another"
    assert engine.run() == "another"


def test_a_class_of_ones_own_has_attributes_of_its_own():
    class Trainer(Engine):
        def __init__(self):
            super().__init__(lambda engine, batch: None)
            self.best = 0

    trainer = Trainer()
    trainer.worst = 1
    assert (trainer.best, trainer.worst) == (0, 1)


def test_an_engine_of_given_types_can_be_made():
    engine = Engine[Any, float](lambda engine, batch: 0.5)
    assert engine.run([1]).output == 0.5


def test_an_engine_alone_in_a_cell_shows_what_print_shows():
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.STARTED, lambda: None)
    assert repr(engine) == str(engine)
    assert "Events.STARTED" in repr(engine)
