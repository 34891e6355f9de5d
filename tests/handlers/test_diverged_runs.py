"""A run whose numbers were lost, and the next one, with good weights put back."""

import pytest
import torch

from leyden.engine import Engine, Events, Update
from leyden.handlers import Checkpoint, Evaluate, TerminateOnNan


def test_a_new_run_begins_undiverged_and_saves_again(tmp_path):
    model = torch.nn.Linear(1, 1)
    bad = {3}

    def step(engine, batch):
        with update.forward():
            loss = model(torch.ones(1, 1)).sum()
        update.backward(loss)
        return float("nan") if engine.state.iteration in bad else loss.detach()

    trainer = Engine(step)
    update = Update(trainer, model, torch.optim.SGD(model.parameters(), lr=0.01))
    checkpoint = Checkpoint(tmp_path / "run", keep=None)
    trainer.attach(TerminateOnNan(), checkpoint)
    with pytest.warns(UserWarning, match="not finite"):
        trainer.run(range(2), max_epochs=4)
    assert trainer.state.diverged
    assert checkpoint.last_path.name.endswith("2")
    bad.clear()
    trainer.run(range(2), max_epochs=4)
    assert not trainer.state.diverged
    assert checkpoint.last_path.name.endswith("8")


def test_a_run_that_diverges_while_it_is_stopped_within_an_evaluation_stays_so():
    """The wish to end it waits, with the rest of the handlers, for the run that goes on."""
    evaluator = Engine(lambda engine, batch: None, training=False)
    trainer = Engine(lambda engine, batch: None)

    @trainer.on(Events.EPOCH_COMPLETED, order=-20)
    def diverge(engine):
        engine.terminate(diverged=True)

    trainer.attach(Evaluate(evaluator, range(4)))
    with evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.interrupt):
        trainer.run(range(2), max_epochs=2)
    trainer.run(range(2), max_epochs=2)
    assert (trainer.state.epoch, trainer.state.diverged) == (1, True)
