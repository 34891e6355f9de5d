"""No update looks at a value on its device. On the device "meta" there are none: whoever looks fails."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine
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
    Loss,
    Mean,
    MeanAbsoluteError,
    MeanIoU,
    MeanSquaredError,
    MultiLabelConfusionMatrix,
    Perplexity,
    Precision,
    R2Score,
    Recall,
    RootMeanSquaredError,
    RunningAverage,
)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


CLASSES = meta(8, 3), meta(8, dtype=torch.int64)
BINARY = meta(8), meta(8, dtype=torch.int64)
MULTILABEL = meta(8, 3), meta(8, 3, dtype=torch.int64)

CASES = {
    "accuracy": (Accuracy(), CLASSES),
    "binary accuracy": (Accuracy(), BINARY),
    "multilabel accuracy": (Accuracy(is_multilabel=True), MULTILABEL),
    "precision": (Precision(), CLASSES),
    "binary precision": (Precision(), BINARY),
    "multilabel recall": (Recall(average="weighted", is_multilabel=True), MULTILABEL),
    "confusion matrix": (ConfusionMatrix(3, "recall"), CLASSES),
    "top-k accuracy": (Accuracy(top_k=2), CLASSES),
    "F beta": (FBeta(2, average="macro"), CLASSES),
    "multilabel F1": (F1(is_multilabel=True), MULTILABEL),
    "multilabel confusion matrix": (MultiLabelConfusionMatrix(3, normalized=True), MULTILABEL),
    "IoU": (IoU(3), CLASSES),
    "mean IoU": (MeanIoU(3), CLASSES),
    "Dice": (Dice(3, "macro"), CLASSES),
    "mean squared error": (MeanSquaredError(), (meta(8, 2), meta(8, 2))),
    "root mean squared error": (RootMeanSquaredError(), (meta(8, 2), meta(8, 2))),
    "mean absolute error": (MeanAbsoluteError(), (meta(8, 2), meta(8, 2))),
    "R2": (R2Score(), (meta(8, 2), meta(8, 2))),
    "geometric mean": (GeometricMean(), meta(8)),
    "perplexity": (Perplexity(), CLASSES),
    "calibration error": (CalibrationError(), CLASSES),
    "binary calibration error": (CalibrationError(), BINARY),
    "frequency": (Frequency(), meta(dtype=torch.int64)),
    "AUROC": (AUROC(), CLASSES),
    "binned AUROC": (AUROC(thresholds=20), CLASSES),
    "binary AUROC": (AUROC(), BINARY),
    "average precision": (AveragePrecision(average=None), CLASSES),
    "binned average precision": (AveragePrecision(average="weighted", thresholds=[0.2, 0.5]), CLASSES),
    "multilabel average precision": (AveragePrecision(is_multilabel=True), MULTILABEL),
    "epoch metric": (EpochMetric(lambda y_pred, y: (y_pred - y).abs().max()), (meta(8), meta(8))),
    "loss": (Loss(nn.functional.cross_entropy), CLASSES),
    "mean": (Mean(), meta(8)),
    "f1": (2 * Precision() * Recall() / (Precision() + Recall()), CLASSES),
    "running average": (RunningAverage(), meta()),
    "running average of accuracy": (RunningAverage(Accuracy()), CLASSES),
}


@pytest.mark.parametrize("case", CASES)
def test_update_and_reset_look_at_no_value(case) -> None:
    metric, output = CASES[case]
    for _ in range(2):
        for _ in range(3):
            metric.observe(output)
        assert metric.compute().device.type == "meta"
        metric.reset()


def test_a_step_of_the_engine_looks_at_no_value() -> None:
    engine = Engine(lambda engine, batch: batch, training=False)
    for name, (metric, output) in CASES.items():
        if output is CLASSES:
            metric.attach(engine, name)
    with pytest.raises(RuntimeError, match="meta"):  # where the epoch ends, the values are wanted
        engine.run([CLASSES] * 3, max_epochs=1)
    assert engine.state.iteration == 3
