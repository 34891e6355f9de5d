"""Measures on each rank what its shard holds: `python native_ranks.py RANKS FILE` writes what each found, as JSON."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Events
from leyden.metrics import (
    AUROC,
    F1,
    Accuracy,
    AveragePrecision,
    CalibrationError,
    ConfusionMatrix,
    Dice,
    EpochMetric,
    FBeta,
    Frequency,
    GeometricMean,
    IoU,
    MeanAbsoluteError,
    MeanIoU,
    MultiLabelConfusionMatrix,
    Perplexity,
    R2Score,
    RootMeanSquaredError,
)

SAMPLES, CLASSES = 101, 4


def data():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(SAMPLES, CLASSES, generator=generator, dtype=torch.float64).softmax(1)
    y = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    y[::9] = -100
    return scores, y


def shard(ends):
    """This rank's batches; rank r has the samples from where the rank before it ended to ends[r]."""
    begin, end = ([0, *ends])[dist.rank()], ends[dist.rank()]
    scores, y = (each[begin:end] for each in data())
    return list(zip(scores.split(8), y.split(8), strict=True)) if len(y) else []


def numbers(output):
    return output[0][:, :2], output[0][:, 2:]


def binary(output):
    return output[0][:, 0], torch.where(output[1] < 0, -100, output[1] == 0).long()


def several(output):
    return output[0], nn.functional.one_hot(output[1].clamp(0), CLASSES)


def all_metrics():
    matrix = ConfusionMatrix(CLASSES)
    return {
        "top 2": Accuracy(top_k=2),
        "f beta": FBeta(2),
        "f1": F1(average="macro"),
        "labels": MultiLabelConfusionMatrix(CLASSES, several, threshold=0.25),
        "iou": IoU(matrix),
        "miou": MeanIoU(matrix),
        "dice": Dice(CLASSES),
        "auroc": AUROC(),
        "auroc of bins": AUROC(average=None, thresholds=20),
        "binary auroc": AUROC(binary),
        "precision": AveragePrecision(average=None),
        "precision of labels": AveragePrecision(several, average="weighted", is_multilabel=True),
        "precision of bins": AveragePrecision(binary, thresholds=[0.1, 0.2, 0.3]),
        "rmse": RootMeanSquaredError(numbers),
        "mae": MeanAbsoluteError(numbers),
        "r2": R2Score(numbers, multioutput="raw_values"),
        "geometric": GeometricMean(lambda output: output[0]),
        "perplexity": Perplexity(lambda output: (output[0].log(), output[1])),
        "calibration": CalibrationError(),
        "median": EpochMetric(lambda y_pred, y: (y_pred - y).median(), numbers),
        "named": EpochMetric(lambda b, a: {"largest": a.max(), "sum": b.sum()}, lambda o: {"a": o[0], "b": o[1]}),
    }


def run(batches, metrics):
    engine = Engine(lambda engine, batch: batch, training=False)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    if not batches:
        engine.add_event_handler(Events.EPOCH_STARTED, engine.terminate_epoch)
    values = engine.run(batches or [data()], max_epochs=2).metrics
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def differing():
    outputs = [(torch.rand(3), torch.rand(3).to([torch.float32, torch.float64][dist.rank()]))]
    try:
        run(outputs, {"any": EpochMetric(lambda y_pred, y: 0.0)})
    except ValueError as error:
        return str(error)
    return None


def scenarios():
    alone = dist.world_size() == 1
    return {
        "uneven": run(shard([SAMPLES] if alone else [37, SAMPLES]), all_metrics()),
        "last empty": run(shard([SAMPLES] if alone else [SAMPLES, SAMPLES]), all_metrics()),
        "first empty": run(shard([SAMPLES] if alone else [0, SAMPLES]), all_metrics()),
        "frequency": run([1, 2], {"frequency": Frequency(lambda output: output * 10**6)})["frequency"] > 0,
        "differing": None if alone else differing(),
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(dist.launch(scenarios, int(sys.argv[1]))))
