"""`supervised_trainer(metrics=)`: what the evaluator's metrics measure, of the training batches."""

import pytest
import torch
from torch import nn

from leyden.engine import Events, supervised_trainer
from leyden.metrics import Accuracy, BatchWise, Loss, RunningAverage

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
Y = torch.tensor([0, 1, 1, 1])


def model_of():
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    return model


def make(metrics, optimizer=torch.optim.SGD, **arguments):
    model = model_of()
    return supervised_trainer(
        model, optimizer(model.parameters(), lr=0.0), nn.CrossEntropyLoss(), metrics=metrics, **arguments
    )


def test_metrics_measure_predictions_while_the_output_is_the_loss():
    trainer = make({"accuracy": Accuracy(), "loss": Loss(nn.CrossEntropyLoss())})
    state = trainer.run([(X, Y), (X, Y)], max_epochs=2)
    assert state.metrics["accuracy"] == 0.75
    assert state.metrics["loss"] == pytest.approx(nn.functional.cross_entropy(X, Y).item())
    assert state.output.ndim == 0


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.LBFGS])
def test_whatever_the_output_is(optimizer):
    trainer = make({"accuracy": Accuracy()}, optimizer, output_transform=lambda x, y, y_pred, loss: "done")
    state = trainer.run([(X, Y)])
    assert (state.output, state.metrics["accuracy"]) == ("done", 0.75)


def test_derived_metrics_and_transforms():
    accuracy = Accuracy()
    of_first = Accuracy(output_transform=lambda output: (output[0][:2], output[1][:2]))
    state = make({"accuracy": accuracy, "error": 1 - accuracy, "first": of_first}).run([(X, Y)])
    assert state.metrics == {"accuracy": 0.75, "error": 0.25, "first": 1.0}


def test_a_metric_attached_beside_measures_the_output():
    trainer = make({"accuracy": Accuracy()})
    RunningAverage().attach(trainer, "loss")
    state = trainer.run([(X, Y)])
    assert state.metrics["loss"] == pytest.approx(nn.functional.cross_entropy(X, Y).item())
    assert state.metrics["accuracy"] == 0.75


def test_a_metric_that_is_attached_later_measures_the_same():
    torchmetrics = pytest.importorskip("torchmetrics")
    f1 = torchmetrics.classification.MulticlassAccuracy(2, average="micro")
    trainer = make({"theirs": f1})
    trainer.attach_metric("accuracy", Accuracy())
    trainer.attach_metric("again", f1)
    trainer.attach_metric("first", Accuracy(), usage=BatchWise())
    trainer.attach_metric(
        "some", torchmetrics.MeanMetric(), output_transform=lambda output: (output[0].argmax(1) == output[1]).float()
    )
    state = trainer.run([(X, Y)])
    assert state.metrics == {"theirs": 0.75, "again": 0.75, "accuracy": 0.75, "first": 0.75, "some": 0.75}
    assert state.output.ndim == 0


def test_no_graph_is_kept():
    kept = []
    trainer = make({"accuracy": Accuracy(output_transform=lambda output: kept.append(output) or output)})
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: None)
    trainer.run([(X, Y)])
    assert not kept[0][0].requires_grad
