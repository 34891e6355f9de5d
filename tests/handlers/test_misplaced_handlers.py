"""Handlers of trainers on an evaluator that Evaluate runs, where they do nothing or not what was meant: told once."""

import warnings

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    Checkpoint,
    EarlyStopping,
    Evaluate,
    LimitBatches,
    Preemption,
    ProgressBar,
    Reproducible,
    TensorBoardLogger,
    TerminateOnNan,
    TimeLimit,
)
from leyden.metrics import Loss

pytestmark = pytest.mark.timeout(60)

DATA = [(torch.ones(4, 2), torch.ones(4, 1))] * 2


def engines():
    model = nn.Linear(2, 1)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), 0.01), nn.MSELoss())
    return trainer, supervised_evaluator(model, {"loss": Loss(nn.MSELoss())})


def warned(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(each.message) for each in caught if issubclass(each.category, UserWarning)]


MISPLACED = {
    "Checkpoint": (lambda path: Checkpoint(path / "c"), "holds no model"),
    "EarlyStopping": (lambda path: EarlyStopping("loss"), 'forgets at the start of each what "loss" was'),
    "TensorBoardLogger": (lambda path: TensorBoardLogger(path / "t"), "begins a run of its own with each"),
    "Preemption": (lambda path: Preemption(), "hears no signal while the trainer trains"),
    "Reproducible": (lambda path: Reproducible(3), "seeds all generators with 3 at the start of each"),
}


@pytest.mark.parametrize("kind", MISPLACED)
def test_it_is_told_once_by_name_before_the_first_step_with_the_cure(kind, tmp_path):
    make, words = MISPLACED[kind]
    trainer, evaluator = engines()
    trainer.attach(Evaluate(evaluator, DATA, prefix="val/"))
    evaluator.attach(make(tmp_path))

    @trainer.on(Events.STARTED)
    def begun(engine):
        raise InterruptedError

    def refused():
        with pytest.raises(InterruptedError):
            trainer.run(DATA, max_epochs=2)

    (message,) = warned(refused)
    assert message.startswith(f"{kind} is attached to the evaluator of Evaluate(prefix='val/'), which is run anew")
    assert words in message
    assert "ttach it to the trainer" in message
    trainer.remove_event_handler(begun, Events.STARTED)
    assert warned(lambda: trainer.run(DATA, max_epochs=2)) == []


MAKE_SENSE = {
    "Checkpoint of what it names": lambda path: Checkpoint(path / "c", extra={"model": nn.Linear(1, 1)}, best="loss"),
    "TerminateOnNan": lambda path: TerminateOnNan(lambda output: output[0]),
    "TimeLimit": lambda path: TimeLimit(60),
    "LimitBatches": lambda path: LimitBatches(1),
    "ProgressBar": lambda path: ProgressBar(),
}


@pytest.mark.parametrize("kind", MAKE_SENSE)
def test_what_has_an_effect_there_is_not_told(kind, tmp_path):
    trainer, evaluator = engines()
    evaluator.attach(MAKE_SENSE[kind](tmp_path))
    trainer.attach(Evaluate(evaluator, DATA, prefix="val/"))
    assert warned(lambda: trainer.run(DATA, max_epochs=2)) == []


def test_an_evaluator_made_as_any_engine_is():
    trainer = Engine(lambda engine, batch: None)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.attach(EarlyStopping(lambda engine: 1.0, mode="max"))
    trainer.attach(Evaluate(evaluator, [0]))
    (message,) = warned(lambda: trainer.run([0]))
    assert "forgets at the start of each what its score was" in message


def test_an_engine_that_trains_within_an_evaluation_keeps_its_handlers(tmp_path):
    (trainer, _), (inner, _) = engines(), engines()
    inner.attach(Checkpoint(tmp_path / "inner"), EarlyStopping(lambda engine: 1.0, mode="max"))
    trainer.attach(Evaluate(inner, DATA))
    assert warned(lambda: trainer.run(DATA)) == []


def test_a_logger_on_an_evaluator_that_is_run_by_hand_logs_its_metrics(tmp_path):
    _, evaluator = engines()
    evaluator.attach(TensorBoardLogger(tmp_path / "t"))
    assert warned(lambda: evaluator.run(DATA)) == []
    assert list((tmp_path / "t").rglob("events*"))


def test_early_stopping_of_an_evaluator_that_is_run_by_hand_is_told_once():
    trainer, evaluator = engines()
    evaluator.attach(EarlyStopping("loss", patience=1))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run(DATA))
    (message,) = warned(lambda: trainer.run(DATA, max_epochs=3))
    assert "of which a run has one epoch and nothing to stop" in message
    assert "Evaluate(evaluator, data" in message


def test_early_stopping_of_a_run_of_several_epochs_without_training_stops_it():
    engine = Engine(lambda engine, batch: None, training=False)
    engine.attach(EarlyStopping(lambda engine: 1.0, mode="max", patience=1))
    assert warned(lambda: engine.run([0], max_epochs=5)) == []
    assert engine.state.epoch == 2
