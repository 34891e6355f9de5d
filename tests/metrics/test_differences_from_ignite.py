"""The lines of docs/from-ignite.md on metrics: what leyden gives, and, where Ignite is installed, what Ignite gives."""

import warnings

import pytest
import torch
from torch import nn

from leyden import metrics as ours
from leyden.engine import Engine

CLASSES = torch.eye(3)[[0, 1, 2, 0]]
PAIR = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
NAN = torch.tensor([[torch.nan, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
ERROR = "an error"


def identity(output):
    return output


CASES = {
    # matter: (a metric, outputs of each epoch, Ignite's value, leyden's)
    "RunningAverage over epochs": (
        lambda m: m.RunningAverage(alpha=0.5, output_transform=identity),
        [1.0, 3.0],
        2.25,
        2.0,
    ),
    "RunningAverage() without an output_transform": (lambda m: m.RunningAverage(), [1.0], ERROR, 1.0),
    "MeanSquaredError of (N, D)": (lambda m: m.MeanSquaredError(), [PAIR], 15.0, 7.5),
    "a value for each class": (
        lambda m: m.Recall(),
        [(CLASSES, torch.tensor([0, 1, 2, 1]))],
        torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64),
        {0: 1.0, 1: 0.5, 2: 1.0},
    ),
    "an output of lists": (
        lambda m: m.Accuracy(),
        [([CLASSES[0], CLASSES[1]], [torch.tensor(0), torch.tensor(2)])],
        0.5,
        ERROR,
    ),
    "an output of lists of batches": (
        lambda m: m.Accuracy(),
        [([CLASSES, CLASSES[:1]], [torch.tensor([0, 1, 2, 1]), torch.tensor([0])])],
        ERROR,
        0.8,
    ),
    "y of -100": (lambda m: m.Accuracy(), [(CLASSES, torch.tensor([0, 1, -100, -100]))], 0.5, 1.0),
    "y that is no class": (lambda m: m.Accuracy(), [(CLASSES, torch.tensor([0, 1, 7, -1]))], 0.5, ERROR),
    "y that is no class of a matrix": (
        lambda m: m.ConfusionMatrix(3),
        [(CLASSES, torch.tensor([0, 1, 7, 7]))],
        torch.diag(torch.tensor([1, 1, 0])),
        torch.diag(torch.tensor([1, 1, 0])),
    ),
    "NaN among scores": (lambda m: m.Accuracy(), [NAN], 1.0, ERROR),
    "floating scores": (lambda m: m.Accuracy(), [(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))], ERROR, 0.5),
    "one-hot targets": (
        lambda m: m.Accuracy(),
        [(CLASSES, nn.functional.one_hot(torch.tensor([0, 1, 2, 1]), 3))],
        pytest.approx(10 / 12),
        ERROR,
    ),
    "Loss with a sum": (lambda m: m.Loss(nn.MSELoss(reduction="sum")), [PAIR], 30.0, ERROR),
    "Loss where y is a mapping": (
        lambda m: m.Loss(lambda y_pred, y: y_pred.mean()),
        [(torch.full((4,), 2.0), {"y": 0}), (torch.full((1,), 5.0), {"y": 0})],
        3.5,
        pytest.approx(2.6),
    ),
    "outputs in 16 bits": (
        lambda m: m.Loss(nn.MSELoss()),
        [(torch.zeros(1, dtype=torch.float16), torch.full((1,), 300.0, dtype=torch.float16))],
        float("inf"),
        90000.0,
    ),
    "a method that tensors do not have": (
        lambda m: m.Accuracy().meen(),
        [(CLASSES, torch.zeros(4).long())],
        ERROR,
        ERROR,
    ),
}


def value(module, engine_class, make, outputs):
    engine = engine_class(lambda engine, batch: batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            make(module).attach(engine, "value")
            return engine.run(outputs, max_epochs=2).metrics["value"]
        except (ValueError, TypeError, RuntimeError, AttributeError):
            return ERROR


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, check_dtype=False)
        return True
    return found == expected


@pytest.mark.parametrize("matter", CASES)
def test_leyden(matter) -> None:
    make, outputs, _, expected = CASES[matter]
    assert same(value(ours, Engine, make, outputs), expected)


@pytest.mark.parametrize("matter", CASES)
def test_ignite(matter) -> None:
    theirs = pytest.importorskip("ignite.metrics")
    from ignite.engine import Engine as TheirEngine

    make, outputs, expected, _ = CASES[matter]
    assert same(value(theirs, TheirEngine, make, outputs), expected)


def test_compute_gives_a_tensor() -> None:
    metric = ours.Accuracy()
    metric.update((CLASSES, torch.tensor([0, 1, 2, 1])))
    assert metric.compute().item() == 0.75
