"""No two may write to one metric: told when they are attached, at the latest when the run starts."""

import pytest

from leyden.engine import Engine, Events
from leyden.handlers import Evaluate
from leyden.metrics import Mean

pytestmark = pytest.mark.timeout(30)


def engine_of(*metrics, training=True):
    engine = Engine(lambda engine, batch: 1.0, training=training)
    for name in metrics:
        Mean().attach(engine, name)
    return engine


def evaluator_of(*metrics):
    return engine_of(*metrics, training=False)


def test_two_evaluations_with_one_prefix_and_one_name():
    trainer, seen = engine_of(), []
    trainer.add_event_handler(Events.STARTED, lambda: seen.append("begun"))
    trainer.attach(Evaluate(evaluator_of("loss", "f1"), [0], prefix="val/"))
    trainer.attach(Evaluate(evaluator_of("loss", "f1"), [1], prefix="test/"))
    message = (
        "with the prefixes 'val/' and 'val/', bring \"val/f1\", \"val/loss\"; one would overwrite the other. Give each"
    )
    with pytest.raises(ValueError, match=message):
        trainer.attach(Evaluate(evaluator_of("loss", "f1", "auc"), [2], prefix="val/"))
    trainer.attach(Evaluate(evaluator_of("auc"), [2], prefix="val/"))
    trainer.run([0])
    assert seen == ["begun"]


def test_one_evaluator_over_two_data_with_one_prefix():
    trainer, evaluator = engine_of(), evaluator_of("loss")
    trainer.attach(Evaluate(evaluator, [0]))
    with pytest.raises(ValueError, match='bring "loss"; one would overwrite the other'):
        trainer.attach(Evaluate(evaluator, [1]))


def test_prefixes_that_make_one_name_of_two():
    trainer = engine_of()
    trainer.attach(Evaluate(evaluator_of("val/loss"), [0]))
    with pytest.raises(ValueError, match="with the prefixes '' and 'val/', bring \"val/loss\""):
        trainer.attach(Evaluate(evaluator_of("loss"), [0], prefix="val/"))


def test_an_evaluators_metric_over_the_trainers_own():
    trainer = engine_of("loss", "accuracy")
    message = (
        'Evaluate brings "loss", and the trainer measures that itself; one would .* prefix= \\("val/"; it has \'\'\\)'
    )
    with pytest.raises(ValueError, match=message):
        trainer.attach(Evaluate(evaluator_of("loss"), [0]))
    trainer.attach(Evaluate(evaluator_of("loss"), [0], prefix="val/"))
    assert set(trainer.run([0]).metrics) == {"loss", "accuracy", "val/loss"}


def test_names_that_come_later_are_told_before_the_first_step():
    for late in ("trainer", "evaluator"):
        trainer, evaluator, steps = engine_of(), evaluator_of(), []
        trainer.add_event_handler(Events.STARTED, lambda steps=steps: steps.append(1))
        trainer.attach(Evaluate(evaluator, [0]), Evaluate(evaluator_of("auc"), [0]))
        if late == "trainer":
            Mean().attach(evaluator, "loss")
            Mean().attach(trainer, "loss")
        else:
            Mean().attach(evaluator, "auc")
        with pytest.raises(ValueError, match="would overwrite the other"):
            trainer.run([0])
        assert steps == []


def test_the_same_evaluation_at_two_events_is_no_clash():
    trainer, evaluator, data = engine_of(), evaluator_of("loss"), [0]
    trainer.attach(Evaluate(evaluator, data), Evaluate(evaluator, data, on=Events.STARTED))
    assert trainer.run([0]).metrics.times_set == {"loss": 2}


def test_what_a_user_declares_is_the_users_affair():
    trainer = engine_of()
    trainer.declare_metrics("val/loss")
    trainer.attach(Evaluate(evaluator_of("loss"), [0], prefix="val/"))
    assert set(trainer.run([0]).metrics) == {"val/loss"}


@pytest.mark.parametrize("prefix", [3, None, b"val/", ["val/"]], ids=str)
def test_a_prefix_that_is_no_text(prefix):
    with pytest.raises(TypeError, match=r"Evaluate\(prefix=\) takes text before the names of its metrics"):
        Evaluate(evaluator_of(), [0], prefix=prefix)


@pytest.mark.parametrize("length", [0, -1])
def test_an_evaluation_of_no_batches(length):
    with pytest.raises(ValueError, match=rf"Evaluate\(epoch_length=\) must be at least 1, but is {length}"):
        Evaluate(evaluator_of(), [0], epoch_length=length)


@pytest.mark.parametrize("length", [2.5, True, "3"])
def test_a_number_of_batches_that_is_none(length):
    with pytest.raises(TypeError, match=r"Evaluate\(epoch_length=\) must be a whole number, but is"):
        Evaluate(evaluator_of(), [0], epoch_length=length)
