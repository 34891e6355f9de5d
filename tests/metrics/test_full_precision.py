"""Metrics compute in float32 at least, whatever precision the model runs in."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import Evaluate, MixedPrecision
from leyden.metrics import Loss, Mean, MeanSquaredError, Metric, RunningAverage

LOGITS = torch.tensor([[0.02, -0.01, 0.03]], dtype=torch.bfloat16)
TARGET = torch.tensor([1])
FAR = torch.tensor([0.0], dtype=torch.float16), torch.tensor([300.0], dtype=torch.float16)


class LargestSquare(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("largest", torch.tensor(0.0), "max")

    def update(self, output):
        y_pred, y = output
        self.largest = (y_pred - y).square().max()

    def compute(self):
        return self.largest


def value(metric, output):
    metric.observe(output)
    return metric.compute().item()


def test_a_loss_of_bfloat16_logits() -> None:
    expected = nn.functional.cross_entropy(LOGITS.double(), TARGET).item()
    assert expected == pytest.approx(1.12211, abs=1e-5)
    assert value(Loss(nn.CrossEntropyLoss()), (LOGITS, TARGET)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "metric", [Loss(nn.MSELoss()), MeanSquaredError(), LargestSquare(), RunningAverage(Loss(nn.MSELoss()))]
)
def test_errors_too_large_for_float16(metric) -> None:
    assert value(metric, FAR) == 90000


def test_nested_outputs_are_widened_too() -> None:
    def loss_fn(y_pred, y, scale):
        assert y_pred["a"].dtype is y[0].dtype is scale.dtype is torch.float32
        assert y[1].dtype is torch.int64
        return (y_pred["a"] - y[0]).square().mean() * scale

    output = {"a": FAR[0]}, (FAR[1], TARGET), {"scale": torch.tensor(1.0, dtype=torch.float16)}
    assert value(Loss(loss_fn), output) == 90000


def test_what_is_float64_stays_so() -> None:
    y_pred, y = torch.tensor([1.0], dtype=torch.float64), torch.tensor([1.0 + 1e-12], dtype=torch.float64)
    assert value(Loss(nn.L1Loss()), (y_pred, y)) == pytest.approx(1e-12, rel=1e-3)


def test_autocast_does_not_reach_an_update() -> None:
    a, b = torch.randn(1, 64), torch.randn(64, 1)
    metric = Loss(lambda y_pred, y: (y_pred @ y).squeeze(), batch_size=lambda y: 1)
    with torch.autocast("cpu", torch.bfloat16):
        metric.update((a, b))
        assert torch.is_autocast_enabled("cpu")
    assert metric.compute().item() == (a @ b).item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_a_loss_follow(dtype) -> None:
    """Of a model whose weights are in 16 bits the loss's own tensors are so too."""
    weight = torch.tensor([1.0, 2.0, 1.5])
    metric = Loss(nn.CrossEntropyLoss(weight=weight.to(dtype)))
    expected = nn.functional.cross_entropy(LOGITS.float(), TARGET, weight=weight).item()
    assert value(metric, (LOGITS, TARGET)) == pytest.approx(expected, rel=1e-6)
    assert metric.loss_fn.weight.dtype is dtype


def test_a_loss_that_needs_sixteen_bits_says_so() -> None:
    weight = torch.ones(3, dtype=torch.bfloat16)
    metric = Loss(lambda y_pred, y: nn.functional.cross_entropy(y_pred, y, weight=weight))
    with pytest.raises(RuntimeError) as caught:
        metric.update((LOGITS, TARGET))
    assert "Loss gives its loss_fn float32" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "bf16-true"])
def test_the_loss_of_an_evaluation_in_low_precision_moves_with_the_model(precision) -> None:
    """In 16 bits six evaluations in a row gave one value."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    loss_fn = nn.CrossEntropyLoss()
    data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(4)]
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=1e-2), loss_fn)
    evaluator = supervised_evaluator(model, metrics={"loss": Loss(loss_fn)})
    losses, by_hand = [], []
    trainer.attach(MixedPrecision(precision), Evaluate(evaluator, data, prefix="val/"))

    @evaluator.on(Events.ITERATION_COMPLETED)
    def note(engine):
        y_pred, y = engine.state.output
        assert y_pred.element_size() == 2
        by_hand.append(loss_fn(y_pred.double(), y).item())

    @trainer.on(Events.EPOCH_COMPLETED)
    def note_epoch(engine):
        losses.append((engine.state.metrics["val/loss"], sum(by_hand[-4:]) / 4))

    trainer.run(data, max_epochs=6)
    for found, expected in losses:
        assert found == pytest.approx(expected, rel=1e-6)
    assert len({found for found, _ in losses}) == 6


def test_means_of_a_step_are_summed_in_full_precision() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    Mean().attach(engine, "mean")
    outputs = [torch.full((), 300.0, dtype=torch.float16)] * 300
    assert engine.run(outputs).metrics["mean"] == 300
