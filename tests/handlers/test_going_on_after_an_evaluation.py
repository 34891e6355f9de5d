"""A run that is stopped within one of two evaluations and goes on in the same process: who watches the metric of the
other one sees its new value, as in the run that never stopped.
"""

import pytest
import torch

from leyden.engine import Engine, Events, Update
from leyden.handlers import EarlyStopping, Evaluate, Schedule
from leyden.metrics import Mean


def run(stops):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(engine, batch):
        with update.forward():
            loss = model(torch.ones(1, 1)).sum()
        update.backward(loss)

    trainer = Engine(step)
    update = Update(trainer, model, optimizer)
    evaluators = [Engine(lambda engine, batch: 1.0, training=False) for _ in "ab"]
    for evaluator in evaluators:
        Mean().attach(evaluator, "loss")
    stopping = EarlyStopping("a/loss", mode="min", patience=10)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    trainer.attach(
        *(Evaluate(evaluator, range(3), prefix=f"{name}/") for name, evaluator in zip("ab", evaluators, strict=True)),
        stopping,
        Schedule(plateau, metric="a/loss"),
    )
    if stops:

        @evaluators[1].on(Events.ITERATION_COMPLETED(once=2))
        def stop():
            if trainer.state.epoch == 3:
                trainer.interrupt()

        trainer.run(range(2), max_epochs=4)
        assert trainer.interrupted
    trainer.run(range(2), max_epochs=4)
    return optimizer.param_groups[0]["lr"], stopping.waited


def test_no_step_of_a_scheduler_and_no_evaluation_is_missed():
    assert run(stops=True) == run(stops=False) == (pytest.approx(0.0125), 3)
