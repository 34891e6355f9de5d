"""Each handler of the table in a second run from the beginning, in the same process: it is the first one again, also
after an error in the midst of a step. What is not a handler's (the model, the optimizer's states, random numbers) is
put back by the test.
"""

import copy

import pytest
import torch
from table import CASES
from test_matrix import Trainer, differing, state_of

from leyden.engine import Events, UpdateEvents
from leyden.handlers.training import EMA

KEEPS = {"MixedPrecision fp16"}
"""Handlers that know more after a run than before: the scale that fits."""


class Accident(Exception):
    pass


def trainer_that_begins_alike(name):
    """A trainer whose runs from the beginning begin with the same model, optimizer states and random numbers."""
    trainer = Trainer(name)
    before = {}

    def begin(engine):
        if engine.state.iteration > 0:
            return
        if not before:
            before["model"] = copy.deepcopy(trainer.model.state_dict())
            before["states"] = copy.deepcopy(dict(trainer.optimizer.state))
            before["random"] = torch.get_rng_state()
        trainer.model.load_state_dict(before["model"])
        trainer.optimizer.state.clear()
        trainer.optimizer.state.update(before["states"])
        torch.set_rng_state(before["random"])

    trainer.engine.add_event_handler(Events.STARTED, begin, order=-100)
    return trainer


def result_of(trainer):
    averages = [handler.averaged() for handler in trainer.handlers if isinstance(handler, EMA)]
    tensors = {name: value.clone() for name, value in state_of(trainer.model).items()}
    return tensors | {f"average of {name}": value for average in averages for name, value in average.items()}


@pytest.mark.parametrize("accident", [None, UpdateEvents.BACKWARD_COMPLETED, UpdateEvents.GRADIENTS_READY], ids=str)
@pytest.mark.parametrize("name", [name for name in CASES if name not in KEEPS])
def test_a_second_run_from_the_beginning_is_the_first_one_again(name, accident):
    trainer = trainer_that_begins_alike(name).run()
    expected, steps = result_of(trainer), trainer.engine.state.step
    if accident is not None:
        trainer = trainer_that_begins_alike(name)
        armed = ["once"]

        @trainer.engine.on(accident)
        def fail():
            if armed and trainer.engine.state.iteration >= min(3, steps):
                armed.clear()
                raise Accident

        with pytest.raises(Accident):
            trainer.run()
    trainer.engine.state.max_epochs = None
    trainer.run()
    assert trainer.engine.state.step == steps
    assert differing(result_of(trainer), expected) == []
