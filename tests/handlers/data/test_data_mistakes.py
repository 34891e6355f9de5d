"""What can't be meant about a run's data is told before the first step."""

import pytest

from leyden.engine import Engine
from leyden.handlers import DeviceTransfer, Evaluate, LimitBatches, Overfit, Reproducible


@pytest.fixture
def steps():
    return []


@pytest.fixture
def trainer(steps):
    return Engine(lambda engine, batch: steps.append(batch))


@pytest.fixture
def evaluator():
    return Engine(lambda engine, batch: None, training=False)


def test_an_epoch_longer_than_its_limit(trainer, steps):
    trainer.attach(LimitBatches(3))
    with pytest.warns(UserWarning, match=r"epoch_length=10 .*3 of LimitBatches\(3\).* begins them anew"):
        trainer.run(range(20), max_epochs=1, epoch_length=10)
    assert len(steps) == 10


@pytest.mark.parametrize("epoch_length", [None, 2, 3])
def test_an_epoch_within_its_limit(trainer, steps, epoch_length):
    trainer.attach(LimitBatches(0.25))
    trainer.run(range(12), max_epochs=1, epoch_length=epoch_length)
    assert steps == list(range(epoch_length or 3))


def test_overfit_on_a_generator(trainer, steps):
    trainer.attach(Overfit(2))
    with pytest.warns(UserWarning, match=r"iterator \(generator\).*iterated again"):
        trainer.run((place for place in range(5)), max_epochs=2)
    assert steps == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [([], ValueError, "is empty"), (None, ValueError, "epoch_length"), (3, TypeError, "must be iterable")],
)
def test_evaluation_data_is_looked_at_before_training(trainer, evaluator, steps, data, error, match):
    trainer.attach(Evaluate(evaluator, data, prefix="val/"))
    with pytest.raises(error, match=match):
        trainer.run(range(3), max_epochs=1)
    assert steps == []


def test_an_evaluator_that_needs_no_data_says_its_length(trainer, evaluator):
    trainer.attach(Evaluate(evaluator, None, epoch_length=2))
    trainer.run(range(3), max_epochs=1)
    assert evaluator.state.iteration == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DeviceTransfer(non_blocking="no"),
        lambda: DeviceTransfer(pin_memory=1),
        lambda: Reproducible(samples="no"),
    ],
)
def test_a_switch_that_is_none(wrong):
    with pytest.raises(TypeError, match="True or False"):
        wrong()


def test_deterministic_is_a_switch_or_warn():
    with pytest.raises(ValueError, match="deterministic"):
        Reproducible(deterministic=1)
