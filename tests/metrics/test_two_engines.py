"""A metric has one count: two engines that would mix their numbers in it are told."""

import copy
import gc
import pickle

import pytest
import torch

from leyden.engine import Engine, Events, supervised_evaluator
from leyden.metrics import Accuracy, Loss, Mean, RunningAverage

MIXED = "this (Mean|Accuracy) measures another engine already, and would mix the numbers of both: each engine needs"


def trainer():
    return Engine(lambda engine, batch: batch)


def evaluator():
    return Engine(lambda engine, batch: batch, training=False)


@pytest.mark.parametrize(("first", "second"), [(trainer, evaluator), (evaluator, trainer), (trainer, trainer)])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda mean: mean, lambda mean: mean),
        (lambda mean: 1 - mean, lambda mean: mean),
        (lambda mean: mean, lambda mean: 2 * mean),
        (lambda mean: mean, lambda mean: RunningAverage(mean)),
        (lambda mean: RunningAverage(mean), lambda mean: mean / 2),
    ],
    ids=["itself", "derived, itself", "itself, derived", "itself, averaged", "averaged, derived"],
)
def test_a_metric_of_a_trainer_measures_no_other_engine(first, second, one, other) -> None:
    mean, engine, another = Mean(), first(), second()
    one(mean).attach(engine, "mean")
    with pytest.raises(ValueError, match=MIXED):
        other(mean).attach(another, "mean")
    assert another.metric_names() == []


def test_with_a_metric_each_the_numbers_are_right() -> None:
    engine, another = trainer(), evaluator()
    Mean().attach(engine, "mean")
    Mean().attach(another, "mean")
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: another.run([100.0, 100.0]))
    assert engine.run([1.0, 2.0, 3.0]).metrics == {"mean": 2.0}


def test_it_may_move_from_engine_to_engine() -> None:
    mean, engine, another = Mean(), trainer(), trainer()
    mean.attach(engine, "mean")
    mean.detach(engine)
    mean.attach(another, "mean")
    assert another.run([1.0, 3.0]).metrics == {"mean": 2.0}
    derived = 1 - mean
    with pytest.raises(ValueError, match=MIXED):
        derived.attach(engine, "mean")
    mean.detach(another)
    derived.attach(engine, "mean")


def test_what_is_refused_claims_nothing() -> None:
    taken, free, engine, another, third = Mean(), Mean(), trainer(), trainer(), trainer()
    taken.attach(engine, "mean")
    with pytest.raises(ValueError, match=MIXED):
        (free + taken).attach(another, "sum")
    free.attach(third, "mean")


def test_an_engine_that_is_gone_does_not_count() -> None:
    mean = Mean()
    gc.disable()
    try:
        for _ in range(2):  # a cell of a notebook, run again
            engine = trainer()
            mean.attach(engine, "mean")
            assert engine.run([1.0, 3.0]).metrics == {"mean": 2.0}
    finally:
        gc.enable()


def test_evaluators_that_run_one_after_the_other_may_share() -> None:
    """As in Ignite's examples: one dict of metrics for the evaluators of training and validation data."""
    metrics = {"accuracy": Accuracy(), "loss": Loss(torch.nn.functional.cross_entropy)}
    model = torch.nn.Identity()
    engines = [supervised_evaluator(model, metrics=metrics) for _ in range(2)]
    data = [[(torch.eye(2), torch.tensor([0, 1]))], [(torch.eye(2), torch.tensor([1, 1]))]]
    for _ in range(2):
        assert [engine.run(each).metrics["accuracy"] for engine, each in zip(engines, data, strict=True)] == [1.0, 0.5]


def test_evaluators_whose_epochs_overlap_may_not() -> None:
    mean, engine, another = Mean(), evaluator(), evaluator()
    mean.attach(engine, "mean")
    mean.attach(another, "mean")
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: another.run([100.0, 100.0]))
    with pytest.raises(RuntimeError, match="one began an epoch in the midst of the other's, which mixed their numbers"):
        engine.run([1.0, 2.0, 3.0])
    assert another.state.metrics == {"mean": 100.0}


def test_one_that_was_interrupted_can_not_go_on_with_what_another_counted() -> None:
    mean, engine, another = Mean(), evaluator(), evaluator()
    mean.attach(engine, "mean")
    mean.attach(another, "mean")
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.interrupt)
    engine.run([1.0, 2.0, 3.0])
    another.run([100.0])
    with pytest.raises(RuntimeError, match="this Mean measures two engines"):
        engine.run([1.0, 2.0, 3.0])


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_a_copy_is_a_metric_of_its_own(twin) -> None:
    mean, engine = Mean(), trainer()
    mean.attach(engine, "mean")
    other = trainer()
    twin(mean).attach(other, "mean")
    assert other.run([1.0, 3.0]).metrics == {"mean": 2.0}


def test_a_metric_needs_a_name() -> None:
    written = r'a metric is attached under a name, but got \'\'; write Accuracy\(...\).attach\(engine, "accuracy"\)'
    with pytest.raises(TypeError, match=written):
        trainer().attach(Accuracy())
    with pytest.raises(TypeError, match=r'RunningAverage\(...\).attach\(engine, "running_average"\)'):
        RunningAverage().attach(trainer())
