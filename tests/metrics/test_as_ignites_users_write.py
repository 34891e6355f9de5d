"""Metrics take what scripts for Ignite give them, and where Ignite is installed its numbers come out."""

import warnings

import pytest
import torch

from leyden import metrics as ours
from leyden.engine import Engine, Events
from leyden.metrics import (
    Accuracy,
    ConfusionMatrix,
    EpochWise,
    Loss,
    Mean,
    MeanSquaredError,
    Metric,
    Precision,
    Recall,
    RunningAverage,
    RunningBatchWise,
    SingleEpochRunningBatchWise,
)

CPU = torch.device("cpu")
SCORES, Y = (
    torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.5, 0.1]]),
    torch.tensor([1, 0, 2, 2]),
)


def identity(output):
    return output


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", CPU, None])
@pytest.mark.parametrize(
    "make",
    [
        lambda device: Accuracy(identity, False, device),
        lambda device: Accuracy(output_transform=identity, is_multilabel=False, device=device, skip_unrolling=True),
        lambda device: Precision(identity, "macro", False, device),
        lambda device: Recall(average="macro", device=device),
        lambda device: ConfusionMatrix(3, None, identity, device),
        lambda device: Loss(torch.nn.functional.cross_entropy, identity, len, device),
        lambda device: Mean(output_transform=lambda output: output[0], device=device),
        lambda device: MeanSquaredError(lambda output: (output[0][:, 0], output[1]), device),
        lambda device: RunningAverage(None, 0.9, lambda output: output[0].mean(), True, device),
        lambda device: RunningAverage(src=Accuracy(device=device), alpha=0.9),
    ],
)
def test_arguments_come_in_ignites_order(make, device) -> None:
    engine, metric = Engine(lambda engine, batch: batch, training=False), make(device)
    metric.attach(engine, "metric")
    engine.run([(SCORES, Y)])
    assert "metric" in engine.state.metrics
    assert metric.skip_unrolling in (True, False)


def test_states_lie_on_the_device_that_was_wished() -> None:
    """Here of data on the device "meta", which nobody can look at."""
    outputs = torch.empty(4, 3, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    followed, wished = Accuracy(), Accuracy(device="cpu")
    followed.update(outputs)
    assert followed.correct.device.type == followed.marks.device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):  # the copy that was asked for
        wished.update(outputs)
    assert wished.correct.device == CPU
    assert wished._device == CPU
    there = Accuracy(device="meta")
    assert there._device == torch.device("meta")


class RightOnes(Metric):
    """A metric as Ignite's documentation shows it."""

    def __init__(self, output_transform=lambda x: x, device="cpu"):
        self._right = None
        self._count = None
        super().__init__(output_transform=output_transform, device=device)

    def reset(self):
        self._right = torch.tensor(0, device=self._device)
        self._count = 0
        super().reset()

    def update(self, output):
        y_pred, y = output[0].detach(), output[1].detach()
        self._right += torch.sum(y_pred.argmax(1) == y).to(self._device)
        self._count += y.shape[0]

    def compute(self):
        return self._right.item() / self._count


def test_a_metric_written_for_ignite() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    RightOnes(device=CPU).attach(engine, "right")
    assert engine.run([(SCORES, Y), (SCORES[:3], Y[:3])]).metrics["right"] == 6 / 7
    by_hand = RightOnes()
    by_hand.update((SCORES, Y))
    assert by_hand.compute() == 0.75


class Total(Metric):
    """One whose reset calls no other, of plain numbers."""

    def reset(self):
        self._total, self._count = 0.0, 0

    def update(self, output):
        self._total += output
        self._count += 1

    def compute(self):
        return self._total / self._count


def test_a_metric_whose_reset_stands_for_itself() -> None:
    by_hand = Total()
    for number in (1.0, 3.0):
        by_hand.update(number)
    assert by_hand.compute() == 2
    engine, seen = Engine(lambda engine, batch: batch, training=False), []
    Total().attach(engine, "mean")

    @engine.on(Events.EPOCH_STARTED(once=2))
    def skip(engine):
        engine.terminate_epoch()

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    engine.run([1.0, 3.0], max_epochs=3)
    assert seen == [{"mean": 2.0}, {}, {"mean": 2.0}]


def test_a_metric_without_a_device_has_that_of_the_process() -> None:
    assert Accuracy()._device == CPU


# -- arithmetic --------------------------------------------------------------------------------------------------------


def test_methods_of_tensors_apply_to_the_value() -> None:
    p, r = Precision(), Recall()
    f1 = (2 * p * r / (p + r)).mean()
    worst = p.min()
    for metric in (f1, worst):
        metric.update((SCORES, Y))
        assert isinstance(metric, Metric)
    p, r = Precision(), Recall()
    for metric in (p, r):
        metric.update((SCORES, Y))
    p, r = p.compute(), r.compute()
    assert f1.compute() == (2 * p * r / (p + r)).mean()
    assert ConfusionMatrix(3).float().sum().compute is not None


@pytest.mark.parametrize("name", ["comput", "corect", "_hidden", "shape", "device"])
def test_a_misspelt_attribute_is_no_metric(name) -> None:
    with pytest.raises(AttributeError, match=f"Accuracy has no '{name}'"):
        getattr(Accuracy(), name)


def test_a_state_may_have_the_name_of_a_method_of_tensors() -> None:
    class Largest(Metric):
        def __init__(self):
            super().__init__()
            self.add_state("max", torch.tensor(0.0), "max")

        def update(self, output):
            self.max = torch.maximum(self.max, output.max())

        def compute(self):
            return self.max

    metric = Largest()
    metric.update(torch.tensor([1.0, 3.0]))
    assert metric.compute() == 3


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", ["epoch_wise", EpochWise(), EpochWise])
def test_the_usage_of_every_metric(usage) -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    Mean().attach(engine, "mean", usage)
    assert engine.run([1.0, 3.0], max_epochs=2).metrics == {"mean": 2.0}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ("running_batch_wise", [2.0, 1.5, 2.25]),
        (RunningBatchWise(), [2.0, 1.5, 2.25]),
        ("single_epoch_running_batch_wise", [2.0, 1.0, 2.0]),
        (SingleEpochRunningBatchWise(), [2.0, 1.0, 2.0]),
    ],
)
def test_the_usages_of_a_running_average(usage, expected) -> None:
    engine, seen = Engine(lambda engine, batch: batch), []
    RunningAverage(alpha=0.5).attach(engine, "smooth", usage=usage)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(engine.state.metrics["smooth"]))
    engine.run([1.0, 3.0], max_epochs=2)
    assert seen[1:] == expected


def test_the_usages_of_all_metrics_come_by_name() -> None:
    engine = Engine(lambda engine, batch: batch)
    Mean(lambda output: output).attach(engine, "mean", usage="batch_wise")
    assert engine.run([1.0, 5.0]).metrics == {"mean": 5.0}


def test_other_usages_are_told() -> None:
    engine = Engine(lambda engine, batch: batch)
    with pytest.raises(ValueError, match=r"usage= knows the names epoch_wise, batch_wise, .* but got 'running_epoch"):
        Mean().attach(engine, "mean", usage="running_epoch_wise")
    with pytest.raises(ValueError, match=r"takes the usages single_epoch_running_batch_wise, running_.*got batch_wise"):
        RunningAverage().attach(engine, "smooth", usage="batch_wise")
    assert engine.metric_names() == []


# -- beside Ignite itself ----------------------------------------------------------------------------------------------

BINARY = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1])
SEVERAL = torch.tensor([[1, 0], [1, 1], [0, 1]]), torch.tensor([[1, 0], [0, 1], [0, 1]])


def f1(p, r):
    return (2 * p * r / (p + r + 1e-20)).mean()


SAME = {
    "accuracy": (lambda m: m.Accuracy(), (SCORES, Y)),
    "binary accuracy": (lambda m: m.Accuracy(), BINARY),
    "accuracy of several labels": (lambda m: m.Accuracy(is_multilabel=True), SEVERAL),
    "precision by class": (lambda m: m.Precision(), (SCORES, Y)),
    "macro": (lambda m: m.Precision(average=True), (SCORES, Y)),
    "micro": (lambda m: m.Recall(average="micro"), (SCORES, Y)),
    "weighted": (lambda m: m.Recall(average="weighted"), (SCORES, Y)),
    "binary precision": (lambda m: m.Precision(), BINARY),
    "binary precision, False": (lambda m: m.Precision(average=False), BINARY),
    "binary precision, None": (lambda m: m.Precision(average=None), BINARY),
    "binary recall, macro": (lambda m: m.Recall(average="macro"), BINARY),
    "precision of several labels": (lambda m: m.Precision(is_multilabel=True), SEVERAL),
    "f1": (lambda m: f1(m.Precision(), m.Recall()), (SCORES, Y)),
    "matrix": (lambda m: m.ConfusionMatrix(3), (SCORES, Y)),
    "matrix by samples": (lambda m: m.ConfusionMatrix(3, "samples"), (SCORES, Y)),
    "loss": (lambda m: m.Loss(torch.nn.functional.cross_entropy), (SCORES, Y)),
    "squares": (lambda m: m.MeanSquaredError(), (SCORES[:, 0], Y.float())),
    "average": (lambda m: m.RunningAverage(m.Accuracy(), 0.5), (SCORES, Y)),
}


@pytest.mark.parametrize("case", SAME)
def test_the_numbers_are_ignites(case) -> None:
    theirs = pytest.importorskip("ignite.metrics")
    from ignite.engine import Engine as TheirEngine

    make, (y_pred, y) = SAME[case]
    batches = list(zip(y_pred.split(2), y.split(2), strict=True))
    found = []
    for module, kind in ((theirs, TheirEngine), (ours, Engine)):
        engine = kind(lambda engine, batch: batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(module).attach(engine, "value")
            value = engine.run(batches, max_epochs=1).metrics["value"]
        found.append(torch.as_tensor(list(value.values()) if isinstance(value, dict) else value, dtype=torch.float64))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9)
