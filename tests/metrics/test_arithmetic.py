"""Metrics are added, divided and indexed like the numbers that they stand for."""

import pytest
import torch

from leyden.metrics import Accuracy, ConfusionMatrix, Derived, Mean, Metric, MetricsLambda, Precision, Recall

Y_PRED, Y = torch.eye(3)[[0, 1, 2, 0, 1, 0]], torch.tensor([0, 1, 2, 1, 1, 2])


def of(value):
    metric = Mean()
    metric.update(value)
    return metric


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda a, b: a + b, 9.0),
        (lambda a, b: a - b, 5.0),
        (lambda a, b: a * b, 14.0),
        (lambda a, b: a / b, 3.5),
        (lambda a, b: a // b, 3.0),
        (lambda a, b: a % b, 1.0),
        (lambda a, b: a**b, 49.0),
        (lambda a, b: -a, -7.0),
        (lambda a, b: abs(b - a), 5.0),
        (lambda a, b: a + 1, 8.0),
        (lambda a, b: 1 + a, 8.0),
        (lambda a, b: 1 - a, -6.0),
        (lambda a, b: a - 1, 6.0),
        (lambda a, b: 2 * a * b / (a + b), 28 / 9),
        (lambda a, b: 14 / a, 2.0),
        (lambda a, b: 15 // a, 2.0),
        (lambda a, b: 15 % a, 1.0),
        (lambda a, b: 2**a, 128.0),
        (lambda a, b: a * torch.tensor(2.0), 14.0),
        (lambda a, b: a.clamp(max=4.0), 4.0),
        (lambda a, b: (a * b).clamp(min=2 * a, max=a + b), 9.0),
        (lambda a, b: Derived(torch.hypot, a, b), 53**0.5),
        (lambda a, b: Derived(lambda x, by: x / by, a, by=b), 3.5),
    ],
)
def test_operators(expression, expected) -> None:
    metric = expression(of(7.0), of(2.0))
    assert isinstance(metric, Metric)
    assert float(metric.compute()) == pytest.approx(expected)


def test_f1_of_precision_and_recall(measured) -> None:
    p, r = Precision(average="macro"), Recall(average="macro")
    metrics = measured([(Y_PRED, Y)], precision=p, recall=r, f1=2 * p * r / (p + r), error=1 - Accuracy())
    p, r = metrics["precision"], metrics["recall"]
    assert metrics["f1"] == pytest.approx(2 * p * r / (p + r))
    assert metrics["error"] == pytest.approx(2 / 6)


def test_by_class_results_are_combined_by_class(measured) -> None:
    p, r = Precision(), Recall()
    f1 = 2 * p * r / (p + r)
    metrics = measured(
        [(Y_PRED, Y)], f1=f1, mean=MetricsLambda(torch.mean, f1), one=p[1], diagonal=ConfusionMatrix(3)[1, 2]
    )
    assert metrics["f1"] == pytest.approx({0: 0.5, 1: 0.8, 2: 2 / 3})
    assert metrics["mean"] == pytest.approx((0.5 + 0.8 + 2 / 3) / 3)
    assert metrics["one"] == 1.0
    assert metrics["diagonal"] == 0


def test_an_item_of_a_mapping(measured) -> None:
    class Both(Mean):
        def compute(self):
            mean = super().compute()
            return {"mean": mean, "double": 2 * mean}

    assert measured([3.0], double=Both()["double"])["double"] == 6.0


def test_a_metric_used_several_times_is_updated_and_computed_once(measured) -> None:
    calls = []

    class Noted(Mean):
        def update(self, output):
            calls.append("update")
            super().update(output)

        def compute(self):
            calls.append("compute")
            return super().compute()

    mean = Noted()
    measured([1.0, 3.0], mean=mean, square=mean * mean, half=mean / 2)
    assert calls == ["update", "update", "compute"]


def test_a_derived_metric_works_without_an_engine() -> None:
    error = 1 - Accuracy()
    error.update((Y_PRED, Y))
    assert error.compute().item() == pytest.approx(2 / 6)
    error.reset()
    error.update((Y_PRED[:3], Y[:3]))
    assert error.compute() == 0


def test_a_metric_is_no_sequence() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(Accuracy())


@pytest.mark.parametrize("other", ["a", None, [1.0], Accuracy])
def test_with_anything_else_is_an_error_at_once(other) -> None:
    with pytest.raises(TypeError, match="metrics are combined with metrics, numbers and tensors, but got"):
        Accuracy() + other
    with pytest.raises(TypeError, match="metrics are combined with metrics, numbers and tensors, but got"):
        other * Accuracy()
