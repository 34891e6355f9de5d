"""Arithmetic of leyden takes metrics of torchmetrics beside its own."""

import operator

import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics")

from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall  # noqa: E402

from leyden.engine import Engine, supervised_trainer  # noqa: E402
from leyden.metrics import Accuracy, MetricsLambda, RunningWindow  # noqa: E402

SCORES, LABELS = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 2, 2])  # three of four right; a mean recall of 5 / 6


@pytest.fixture
def engine():
    return Engine(lambda engine, batch: batch, training=False)


def recall():
    return MulticlassRecall(3)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda: Accuracy() + recall(), 0.75 + 5 / 6),
        (lambda: Accuracy() - recall(), 0.75 - 5 / 6),
        (lambda: 2 * Accuracy() * recall() / (Accuracy() + recall()), 2 * 0.75 * 5 / 6 / (0.75 + 5 / 6)),
        (lambda: MetricsLambda(operator.sub, recall(), Accuracy()), 5 / 6 - 0.75),
        (lambda: MetricsLambda(lambda a, r: a * r, a=Accuracy(), r=recall()), 0.75 * 5 / 6),
        (lambda: 1 - recall(), 1 / 6),  # torchmetrics' own
    ],
)
def test_gives_the_number(engine, expression, expected) -> None:
    engine.attach_metric("value", expression())
    half = [(SCORES[:2], LABELS[:2]), (SCORES[2:], LABELS[2:])]
    assert engine.run(half, max_epochs=2).metrics["value"] == pytest.approx(expected)


def test_on_a_trainer_and_in_a_window() -> None:
    model = torch.nn.Linear(3, 3)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.CrossEntropyLoss())
    trainer.attach_metric("difference", Accuracy() - MulticlassAccuracy(3, average="micro"), usage=RunningWindow(2))
    trainer.run([(SCORES, LABELS)] * 3)
    assert trainer.state.metrics["difference"] == pytest.approx(0.0)


def test_of_torchmetrics_with_one_of_leyden_says_how_to_write_it(engine) -> None:
    with pytest.raises(TypeError, match="torchmetrics can't compute with a metric of leyden, Accuracy; leyden's arith"):
        engine.attach_metric("value", recall() + Accuracy())


def test_one_object_is_updated_once_wherever_it_stands(engine) -> None:
    total = torchmetrics.SumMetric()
    engine.attach_metric("value", MetricsLambda(lambda a, b: a + b, total, total), usage=None)
    assert engine.run([1.0, 2.0]).metrics["value"] == 6.0
    assert float(total.compute()) == 3.0


def test_one_object_in_two_that_are_attached(engine) -> None:
    shared = recall()
    engine.attach_metric("sum", Accuracy() + shared)
    with pytest.raises(ValueError, match=r"give each attached metric its own, a \.clone\(\) of it"):
        engine.attach_metric("extremes", torchmetrics.MinMaxMetric(shared))


def test_one_object_on_two_engines_is_called_by_its_class(engine) -> None:
    shared = recall()
    trainer = Engine(lambda engine, batch: batch)
    trainer.attach_metric("recall", shared)
    with pytest.raises(ValueError, match="this MulticlassRecall measures another engine already"):
        engine.attach_metric("recall", shared)
