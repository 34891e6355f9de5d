"""Metrics of torchmetrics that can't be measured here say why as they are attached."""

import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics")

from leyden.engine import Engine, supervised_evaluator, supervised_trainer  # noqa: E402
from leyden.metrics import Accuracy  # noqa: E402


@pytest.fixture
def engine():
    return Engine(lambda engine, batch: batch, training=False)


def test_a_tracker(engine) -> None:
    with pytest.raises(ValueError, match="attach the metric that it tracks"):
        engine.attach_metric("best", torchmetrics.MetricTracker(torchmetrics.MeanSquaredError()))


@pytest.mark.parametrize("option", [{"dist_sync_fn": lambda *args: None}, {"process_group": object()}])
def test_a_synchronisation_of_its_own(engine, option) -> None:
    with pytest.raises(
        ValueError, match=f"MeanSquaredError has {next(iter(option))}=.*; leave {next(iter(option))} out"
    ):
        engine.attach_metric("error", torchmetrics.MeanSquaredError(**option))


class Errors(torchmetrics.Metric):
    """One that is made of others."""

    def __init__(self, parts, hold):
        super().__init__()
        self.parts = hold(parts)

    def update(self, preds, target):
        for each in self.parts:
            each.update(preds, target)

    def compute(self):
        return sum(each.compute() for each in self.parts)


@pytest.mark.parametrize("hold", [list, tuple, lambda parts: {"a": torch.nn.ModuleList(parts)}])
def test_metrics_where_torch_does_not_find_them(engine, hold) -> None:
    parts = [torchmetrics.MeanSquaredError(), torchmetrics.MeanAbsoluteError()]
    with pytest.raises(
        ValueError, match=r"Errors keeps a Mean\w+ in parts, a \w+, .* make parts a torch.nn.ModuleList"
    ):
        engine.attach_metric("errors", Errors(parts, hold))
    engine.attach_metric("errors", Errors(parts, torch.nn.ModuleList))
    assert engine.run([(torch.zeros(2), torch.full((2,), 3.0))]).metrics == {"errors": 9.0 + 3.0}


def test_a_metric_in_two_that_are_attached(engine) -> None:
    error = torchmetrics.MeanSquaredError()
    engine.attach_metric("error", error)
    with pytest.raises(ValueError, match=r"give each attached metric its own, a \.clone\(\) of it"):
        engine.attach_metric("extremes", torchmetrics.MinMaxMetric(error))
    engine.attach_metric("extremes", torchmetrics.MinMaxMetric(error.clone()))


def test_one_object_on_a_trainer_and_an_evaluator() -> None:
    model, loss_fn, metric = (
        torch.nn.Linear(2, 3),
        torch.nn.CrossEntropyLoss(),
        torchmetrics.Accuracy("multiclass", num_classes=3),
    )
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn, metrics={"a": metric})
    with pytest.raises(ValueError, match="another engine"):
        supervised_evaluator(model, metrics={"a": metric})
    assert trainer.metric_names() == ["a"]


def test_two_of_one_name(engine) -> None:
    engine.attach_metric("error", torchmetrics.MeanSquaredError())
    with pytest.raises(ValueError, match='the engine has a metric "error" already'):
        engine.attach_metric("error", Accuracy())


def test_what_torchmetrics_says_of_wrong_values_names_the_metric(engine) -> None:
    class Spoilt(torchmetrics.MeanSquaredError):
        def compute(self):
            raise IndexError("out of bounds")

    engine.attach_metric("error", Spoilt())
    with pytest.raises(IndexError, match="out of bounds") as error:
        engine.run([(torch.ones(2), torch.ones(2))])
    assert error.value.__notes__ == ["raised as the Spoilt of the engine was computed"]


@pytest.mark.parametrize(
    ("metric", "output"),
    [
        (lambda: torchmetrics.classification.BinaryAccuracy(), (torch.eye(3), torch.arange(3))),
        (lambda: torchmetrics.classification.MulticlassAccuracy(2), (torch.eye(3), torch.arange(3))),
        (lambda: torchmetrics.retrieval.RetrievalMRR(), (torch.ones(3), torch.ones(3))),
    ],
    ids=["another task", "another number of classes", "an argument too few"],
)
def test_what_torchmetrics_says_of_a_wrong_output_names_the_metric_and_what_it_got(engine, metric, output) -> None:
    measure = metric()
    engine.attach_metric("measured", measure)
    with pytest.raises((ValueError, RuntimeError, TypeError)) as caught:
        engine.run([output])
    (note,) = caught.value.__notes__
    assert f"raised as {type(measure).__name__} was updated with a tuple of 2: (a tensor of shape (3" in note
    assert "output_transform=" in note


def test_one_that_is_attached_as_a_handler(engine) -> None:
    with pytest.raises(TypeError, match=r'engine\.attach_metric\("name", MeanSquaredError\(\.\.\.\)\)'):
        engine.attach(torchmetrics.MeanSquaredError())


def test_a_collection_in_place_of_metrics_by_name() -> None:
    collection = torchmetrics.MetricCollection([torchmetrics.MeanSquaredError()])
    with pytest.raises(TypeError, match=r'a MetricCollection is one of them: \{"more": MetricCollection\(\.\.\.\)\}'):
        supervised_evaluator(torch.nn.Identity(), metrics=collection)
