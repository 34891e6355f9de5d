"""The same metrics on leyden, Ignite and torchmetrics, updated as an engine or a loop updates them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from leyden.metrics import Accuracy, Loss

IGNITE = find_spec("ignite") is not None
TORCHMETRICS = find_spec("torchmetrics") is not None

Output = tuple[torch.Tensor, torch.Tensor]
Update = Callable[[], Any]

SAMPLES, CLASSES = 64, 10


def outputs(device: str) -> dict[str, Output]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(SAMPLES, CLASSES, generator=generator)
    classes = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    labels = torch.randint(0, 2, (SAMPLES, CLASSES), generator=generator)
    pairs = {
        "Accuracy, multiclass": (scores, classes),
        "Accuracy, binary": (scores[:, 0].contiguous(), labels[:, 0].contiguous()),
        "Accuracy, multilabel": (scores, labels),
        "Loss, cross entropy": (scores, classes),
    }
    return {name: (y_pred.to(device), y.to(device)) for name, (y_pred, y) in pairs.items()}


def leyden(output: Output, row: str) -> Update:
    metric = Loss(nn.CrossEntropyLoss()) if row.startswith("Loss") else Accuracy(is_multilabel="multilabel" in row)
    return lambda: metric.observe(output)


def ignite(output: Output, row: str) -> Update:
    """As its engine calls it; of scores it takes binary labels, as its documentation shows."""
    from ignite import metrics

    def cut(output: Output) -> Output:
        return (output[0] > 0.5).long(), output[1]

    device = output[0].device
    metric: Any
    if row.startswith("Loss"):
        metric = metrics.Loss(nn.CrossEntropyLoss(), device=device)
    elif "multiclass" in row:
        metric = metrics.Accuracy(device=device)
    else:
        metric = metrics.Accuracy(cut, is_multilabel="multilabel" in row, device=device)
    engine: Any = SimpleNamespace(state=SimpleNamespace(output=output))
    return lambda: metric.iteration_completed(engine)


def torchmetrics(output: Output, row: str) -> Update:
    from torchmetrics import aggregation, classification

    device = output[0].device
    metric: Any
    if row.startswith("Loss"):
        loss_fn, metric = nn.CrossEntropyLoss(), aggregation.MeanMetric().to(device)
        return lambda: metric.update(loss_fn(*output), len(output[1]))
    if "multiclass" in row:
        metric = classification.MulticlassAccuracy(CLASSES, average="micro")
    elif "binary" in row:
        metric = classification.BinaryAccuracy()
    else:
        metric = classification.MultilabelExactMatch(CLASSES)
    metric.to(device)
    return lambda: metric.update(*output)


def torchmetrics_functional(output: Output, row: str) -> Update:
    """A value for the batch, and its sum kept by hand."""
    from torchmetrics.functional import classification

    total = torch.zeros((), device=output[0].device)
    if row.startswith("Loss"):
        loss_fn = nn.CrossEntropyLoss()
        return lambda: total.add_(loss_fn(*output), alpha=len(output[1]))
    if "multiclass" in row:
        return lambda: total.add_(classification.multiclass_accuracy(*output, CLASSES, average="micro"))
    if "binary" in row:
        return lambda: total.add_(classification.binary_accuracy(*output))
    return lambda: total.add_(classification.multilabel_exact_match(*output, CLASSES))


def rivals() -> dict[str, Callable[[Output, str], Update]]:
    found = {"leyden": leyden}
    if IGNITE:
        found["Ignite"] = ignite
    if TORCHMETRICS:
        found["torchmetrics"] = torchmetrics
        found["its functions"] = torchmetrics_functional
    return found
