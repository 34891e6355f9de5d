"""Items of a value that is a mapping are known before the first step, so that handlers can watch them."""

import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics")

from torchmetrics import (  # noqa: E402
    BootStrapper,
    ClasswiseWrapper,
    MetricCollection,
    MinMaxMetric,
    MultitaskWrapper,
)
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall, MultilabelAccuracy  # noqa: E402
from torchmetrics.wrappers import LambdaInputTransformer, Running  # noqa: E402

from leyden.engine import Engine, supervised_evaluator, supervised_trainer  # noqa: E402
from leyden.handlers import EarlyStopping, Evaluate  # noqa: E402

SCORES, LABELS = torch.eye(3).repeat(4, 1), torch.arange(12) % 3


def accuracy():
    return MulticlassAccuracy(3, average="micro")


def recalls(**options):
    return ClasswiseWrapper(MulticlassRecall(3, average=None), **options)


def handed_on(metric):
    return LambdaInputTransformer(metric, transform_pred=lambda scores: scores * 2)


METRICS = {
    "classes, counted by the metric": recalls,
    "labels": lambda: ClasswiseWrapper(MultilabelAccuracy(3, average=None)),
    "classes with names": lambda: recalls(labels=["a", "b", "c"]),
    "classes without a prefix": lambda: recalls(prefix="", labels=["a", "b", "c"]),
    "classes with a postfix": lambda: recalls(postfix="_recall"),
    "a collection with wrappers": lambda: MetricCollection(
        {"right": accuracy(), "recall": recalls(), "range": MinMaxMetric(accuracy()), "boot": BootStrapper(accuracy())},
        prefix="tm/",
        postfix="!",
    ),
    "items of one name": lambda: MetricCollection(
        {"right": accuracy(), "a": MinMaxMetric(accuracy()), "b": MinMaxMetric(accuracy())}, prefix="tm/"
    ),
    "wrappers that hand on": lambda: MetricCollection({"few": Running(accuracy()), "same": handed_on(recalls())}),
    "a collection in a collection": lambda: MetricCollection(
        {"right": accuracy(), "inner": MetricCollection({"recall": recalls(), "also": accuracy()}, prefix="in_")},
        prefix="tm/",
    ),
}


@pytest.mark.parametrize("name", METRICS)
def test_are_those_that_come(name) -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    engine.attach_metric("measured", METRICS[name]())
    foreseen = engine.metric_names()
    labels = torch.eye(3, dtype=torch.long).repeat(4, 1) if name == "labels" else LABELS
    assert foreseen == sorted(engine.run([(SCORES, labels)]).metrics)
    assert len(foreseen) > 3


def test_of_several_tasks() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    engine.attach_metric("tasks", MultitaskWrapper({"one": accuracy(), "other": accuracy()}, prefix="of_"))
    output = ({"one": SCORES, "other": SCORES}, {"one": LABELS, "other": LABELS})
    assert engine.metric_names() == sorted(engine.run([output]).metrics) == ["of_one", "of_other", "tasks"]


def test_one_of_a_collection_with_wrappers_is_watched() -> None:
    model = torch.nn.Linear(3, 3)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.0), torch.nn.CrossEntropyLoss())
    metrics = MetricCollection({"accuracy": accuracy(), "recall": recalls()}, prefix="tm/")
    evaluator = supervised_evaluator(model, metrics={"more": metrics})
    trainer.attach(Evaluate(evaluator, [(SCORES, LABELS)], prefix="val/"), EarlyStopping("val/tm/accuracy", patience=2))
    trainer.run([(SCORES, LABELS)], max_epochs=9)
    assert trainer.state.epoch == 3


def test_a_name_that_is_none_of_them_is_an_error_before_the_first_step() -> None:
    model = torch.nn.Linear(3, 3)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.0), torch.nn.CrossEntropyLoss())
    trainer.attach_metric("more", MetricCollection({"accuracy": accuracy(), "recall": recalls()}, prefix="tm/"))
    trainer.attach(EarlyStopping("tm/acuracy", mode="max", patience=2))
    with pytest.raises(ValueError, match="tm/accuracy, tm/multiclassrecall_0"):
        trainer.run([(SCORES, LABELS)])
    assert trainer.state.iteration == 0
