"""`metrics=` of the supervised engines takes metrics by name, and says what to write for anything else."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Order, supervised_evaluator
from leyden.metrics import Accuracy, ConfusionMatrix, Loss, MeanSquaredError, Metric, Precision, Recall


class ForeignF1:
    """Has the methods of torchmetrics' metrics."""

    def reset(self):
        self.values = []

    def update(self, y_pred, y):
        self.values.append((y_pred.argmax(1) == y).float().mean())

    def compute(self):
        return torch.stack(self.values).mean()


def test_a_metric_of_another_package_says_which_handlers_to_write() -> None:
    with pytest.raises(TypeError, match=r'metrics= got ForeignF1 of .* for "f1", which has no attach') as caught:
        supervised_evaluator(nn.Identity(), metrics={"accuracy": Accuracy(), "f1": ForeignF1()})
    written = str(caught.value).partition(":\n\n")[2].replace("ForeignF1(...)", "ForeignF1()")
    lines = "\n".join(line.removeprefix("    ") for line in written.splitlines())
    engine = supervised_evaluator(nn.Identity())
    exec(lines, {"engine": engine, "Events": Events, "Order": Order, "ForeignF1": ForeignF1})
    assert engine.metric_names() == ["f1"]
    data = [(torch.eye(2), torch.tensor([0, 1])), (torch.eye(2), torch.tensor([1, 1]))]
    for _ in range(2):
        assert engine.run(data).metrics == {"f1": 0.75}


def test_torchmetrics_itself_is_taken_as_it_is() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    f1 = torchmetrics.F1Score(task="multiclass", num_classes=2)
    evaluator = supervised_evaluator(nn.Identity(), metrics={"f1": f1})
    assert evaluator.run([(torch.eye(2), torch.tensor([0, 0]))]).metrics == {"f1": 0.5}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accuracy": Accuracy}, r'got the class Accuracy for "accuracy"; give it an object: {"accuracy": Accuracy'),
        ([Accuracy()], r'metrics= takes metrics by name, such as {"accuracy": Accuracy\(\)}, but got list'),
        ({"loss": nn.functional.mse_loss}, r'metrics= got .* for "loss", which has no attach.*Mean\(output_transform'),
        ({3: Accuracy()}, "a metric is attached under a name, but got 3"),
    ],
)
def test_what_is_no_metric_by_name_is_told(metrics, message) -> None:
    with pytest.raises(TypeError, match=message):
        supervised_evaluator(nn.Identity(), metrics=metrics)


@pytest.mark.parametrize(
    "metric",
    [
        Accuracy(),
        Precision(),
        Recall(),
        ConfusionMatrix(2),
        MeanSquaredError(),
        Loss(nn.functional.mse_loss),
        1 - Accuracy(),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_a_tensor_of_two_rows_is_not_unpacked_into_a_pair(metric) -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    metric.attach(engine, "metric")
    with pytest.raises(TypeError, match=r"takes \(y_pred, y\).* but found a tensor of shape \(2, 2\)"):
        engine.run([torch.eye(2)])
    assert isinstance(metric, Metric)
