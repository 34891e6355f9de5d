"""What it costs to reduce 20 metrics over the ranks at an epoch's end, beside torchmetrics' own synchronisation.

    python benchmarks/metric_reduction.py            4 processes on this machine, with gloo
    python benchmarks/metric_reduction.py --ranks 2

Needs torchmetrics (pip install torchmetrics).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.distributed
import torchmetrics
from _measure import print_table
from torchmetrics import classification, regression

from leyden import distributed as dist
from leyden import metrics
from leyden.engine import Engine, Events, Order

BAR = 4
CLASSES, SAMPLES, BATCHES = 10, 256, 4
COLLECTIVES = (
    "all_reduce", "all_gather", "all_gather_object", "all_gather_into_tensor", "all_to_all", "barrier", "broadcast",
    "broadcast_object_list", "gather", "gather_object", "reduce", "reduce_scatter", "scatter",
)  # fmt: skip

Output = tuple[torch.Tensor, torch.Tensor]


def of_torchmetrics() -> dict[str, Any]:
    """12 metrics: of each reduction, and with states that grow by the samples."""
    warnings.filterwarnings("ignore", message=".*will save all", category=UserWarning)
    scores = {
        "f1": classification.MulticlassF1Score(CLASSES),
        "kappa": classification.MulticlassCohenKappa(CLASSES),
        "mcc": classification.MulticlassMatthewsCorrCoef(CLASSES),
        "auroc": classification.MulticlassAUROC(CLASSES),
        "average precision": classification.MulticlassAveragePrecision(CLASSES, thresholds=50),
        "calibration": classification.MulticlassCalibrationError(CLASSES),
        "hinge": classification.MulticlassHingeLoss(CLASSES),
        "specificity": classification.MulticlassSpecificity(CLASSES),
    }
    numbers = {
        "pearson": regression.PearsonCorrCoef(),
        "spearman": regression.SpearmanCorrCoef(),
        "explained": regression.ExplainedVariance(),
        "largest": torchmetrics.MaxMetric(),
    }
    return scores | numbers


def natives() -> dict[str, tuple[metrics.Metric, Callable[[], Any]]]:
    """8 metrics of leyden, each with what measures the same in torchmetrics."""
    return {
        "accuracy": (metrics.Accuracy(), lambda: classification.MulticlassAccuracy(CLASSES, average="micro")),
        "precision": (metrics.Precision(average="macro"), lambda: classification.MulticlassPrecision(CLASSES)),
        "recall": (metrics.Recall(average="macro"), lambda: classification.MulticlassRecall(CLASSES)),
        "matrix": (metrics.ConfusionMatrix(CLASSES), lambda: classification.MulticlassConfusionMatrix(CLASSES)),
        "mse": (metrics.MeanSquaredError(first), regression.MeanSquaredError),
        "mae": (metrics.MeanAbsoluteError(first), regression.MeanAbsoluteError),
        "r2": (metrics.R2Score(first), regression.R2Score),
        "mean": (metrics.Mean(lambda output: output[0][:, 0]), torchmetrics.MeanMetric),
    }


def first(output: Output) -> Output:
    """A column of the scores, and the class as a number, for metrics of numbers."""
    return output[0][:, 0], output[1].to(output[0].dtype)


def taken(name: str, output: Output) -> tuple[torch.Tensor, ...]:
    """What the metric of torchmetrics with that name takes."""
    if name in ("largest", "mean"):
        return (output[0][:, 0],)
    return first(output) if name in ("pearson", "spearman", "explained", "mse", "mae", "r2") else output


def outputs() -> list[Output]:
    """This rank's; each has another number of batches."""
    generator = torch.Generator().manual_seed(dist.rank())
    return [
        (
            torch.rand(SAMPLES, CLASSES, generator=generator).softmax(1),
            torch.randint(0, CLASSES, (SAMPLES,), generator=generator),
        )
        for _ in range(BATCHES + dist.rank())
    ]


@contextmanager
def counting(calls: Counter[str]) -> Iterator[None]:
    """Counts the collectives of torch.distributed, those within one another once."""
    originals = {name: getattr(torch.distributed, name) for name in COLLECTIVES}
    depth = 0

    def counted(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            calls[name] += depth == 0
            depth += 1
            try:
                return originals[name](*args, **kwargs)
            finally:
                depth -= 1

        return call

    for name in COLLECTIVES:
        setattr(torch.distributed, name, counted(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(torch.distributed, name, original)


def leydens(epochs: int) -> tuple[list[Counter[str]], list[float], dict[str, Any]]:
    """The collectives and the seconds of each epoch's end, and the values."""
    engine = Engine(lambda engine, output: output, training=False)
    for name, (metric, _) in natives().items():
        engine.attach_metric(name, metric)
    for name, metric in of_torchmetrics().items():
        engine.attach_metric(name, metric, output_transform=lambda output, name=name: taken(name, output))
    calls: list[Counter[str]] = []
    seconds: list[float] = []
    counts = ExitStack()

    @engine.on(Events.EPOCH_COMPLETED, order=Order.METRICS - 1)
    def begin() -> None:
        torch.distributed.barrier()
        calls.append(Counter())
        counts.enter_context(counting(calls[-1]))
        seconds.append(time.perf_counter())

    @engine.on(Events.EPOCH_COMPLETED, order=Order.METRICS + 1)
    def end() -> None:
        seconds[-1] = time.perf_counter() - seconds[-1]
        counts.close()

    values = dict(engine.run(outputs(), max_epochs=epochs).metrics)
    return calls, seconds, values


def torchmetrics_own(epochs: int) -> tuple[list[Counter[str]], list[float], dict[str, Any]]:
    """The same of the same metrics, each of which synchronises its own states in `compute`."""
    measured = of_torchmetrics() | {name: make() for name, (_, make) in natives().items()}
    calls: list[Counter[str]] = []
    seconds: list[float] = []
    values: dict[str, Any] = {}
    for _ in range(epochs):
        for name, metric in measured.items():
            metric.reset()
            for output in outputs():
                metric.update(*taken(name, output))
        torch.distributed.barrier()
        calls.append(Counter())
        with counting(calls[-1]):
            began = time.perf_counter()
            values = {name: metric.compute() for name, metric in measured.items()}
            seconds.append(time.perf_counter() - began)
    return calls, seconds, values


def measured(epochs: int) -> dict[str, dict[str, Any]]:
    """By rival: the collectives of an epoch's end, all ranks' median seconds, and how far the values are apart."""
    found: dict[str, dict[str, Any]] = {}
    values = {}
    for name, rival in {"leyden": leydens, "torchmetrics": torchmetrics_own}.items():
        calls, seconds, values[name] = rival(epochs)
        found[name] = {"collectives": dict(calls[-1]), "seconds": median(seconds[1:] or seconds)}
    theirs = values["torchmetrics"]
    found["leyden"]["apart"] = max(apart(values["leyden"][name], theirs[name]) for name in theirs)
    return found


def apart(ours: Any, theirs: torch.Tensor) -> float:
    """The largest difference of a value, which leyden gives as a number or a matrix."""
    return float((torch.as_tensor(ours, dtype=torch.float64) - theirs.double()).abs().max())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=11, help="the first is left out of the time")
    arguments = parser.parse_args(argv)
    of_ranks = dist.launch(measured, arguments.ranks, args=(arguments.epochs,))
    rows = []
    for name in ("leyden", "torchmetrics"):
        count = {sum(of_rank[name]["collectives"].values()) for of_rank in of_ranks}
        seconds = max(of_rank[name]["seconds"] for of_rank in of_ranks)
        rows.append((name, "/".join(map(str, sorted(count))), f"{1e3 * seconds:.1f}"))
    print_table(
        f"20 metrics, 12 of them torchmetrics', at an epoch's end on {arguments.ranks} ranks",
        ("rival", "collectives", "ms, reduced and computed"),
        rows,
    )
    ratio = float(rows[1][2]) / float(rows[0][2])
    apart_at_most = max(of_rank["leyden"]["apart"] for of_rank in of_ranks)
    most = max(sum(of_rank["leyden"]["collectives"].values()) for of_rank in of_ranks)
    print(f"torchmetrics takes {ratio:.1f} times as long; the values are at most {apart_at_most:.1e} apart")
    print(f"bar: at most {BAR} collectives: {'held' if most <= BAR else 'missed'}")


if __name__ == "__main__":
    main()
