"""Measures on each rank what its shard holds: `python measuring.py RANKS FILE` writes what each found, as JSON."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order
from leyden.metrics import (
    Accuracy,
    ConfusionMatrix,
    EpochMetric,
    Loss,
    Mean,
    MeanSquaredError,
    Metric,
    Precision,
    Recall,
    RunningAverage,
)

SAMPLES, CLASSES = 101, 4
COLLECTIVES = (
    "all_reduce", "all_gather", "all_gather_object", "all_gather_into_tensor", "gather", "broadcast",
    "broadcast_object_list", "barrier",
)  # fmt: skip


class Values(Metric):
    """Every value by "cat", the extremes and, per column of unknown number, the largest."""

    required_output_keys = None

    def __init__(self):
        super().__init__()
        self.add_state("values", torch.empty(0), "cat")
        self.add_state("rows", torch.empty(0, dtype=torch.float64), "cat")
        self.add_state("truths", torch.empty(0, dtype=torch.bool), "cat")
        self.add_state("least", torch.tensor(torch.inf), "min")
        self.add_state("columns", torch.empty(0), "max")

    def update(self, output):
        scores = output[0]
        self.values.append(scores[:, 0])
        self.rows.append(scores.double())
        self.truths.append(scores[:, 0] > 0.5)
        self.least = torch.minimum(self.least, scores.min())
        largest = scores.max(0).values
        self.columns = torch.maximum(self.columns, largest) if self.columns.numel() else largest

    def compute(self):
        return {
            "median": torch.cat(self.values).median(),
            "rows": torch.cat(self.rows).sort(0).values.tolist(),
            "truths": torch.cat(self.truths).sum(),
            "least": self.least,
            "columns": self.columns.tolist(),
        }


class Parts(Metric):
    """A state of each further reduction; of unknown shape too."""

    required_output_keys = None

    def __init__(self):
        super().__init__()
        self.add_state("average", torch.tensor(0.0, dtype=torch.float64), "mean")
        self.add_state("columns", torch.empty(0, dtype=torch.float64), "mean")
        self.add_state("own", torch.zeros(2), "none")
        self.add_state("products", torch.ones(()), lambda stacked: stacked.prod(0))
        self.add_state("least", torch.tensor(2**40), "min")
        self.add_state("most", torch.tensor(-torch.inf), "max")

    def update(self, output):
        scores = output[0].double()
        self.average += (scores.mean() - self.average) / (self._updates + 1)
        columns = scores.mean(0)
        self.columns = (
            columns if not self.columns.numel() else self.columns + (columns - self.columns) / (self._updates + 1)
        )
        self.own = torch.stack([scores.min(), scores.max()]).float()
        self.products = self.products * 2
        self.least = torch.minimum(self.least, (scores.min() * 1000).long())
        self.most = torch.maximum(self.most, scores.max().float())

    def compute(self):
        return {
            "average": self.average,
            "columns": self.columns.tolist(),
            "own": list(self.own.shape),
            "products": self.products,
            "least": self.least,
            "most": self.most,
        }


def raising(y_pred, y):
    raise ValueError("no such score")


def data(classes=CLASSES):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(SAMPLES, classes, generator=generator)
    return scores, torch.randint(0, classes, (SAMPLES,), generator=generator)


def shard(sizes):
    """This rank's batches of at most 8 samples. `sizes`: samples of each rank but the last, which has the rest."""
    ends = [*torch.tensor(sizes).cumsum(0).tolist(), SAMPLES] if dist.world_size() > 1 else [SAMPLES]
    begin = ([0, *ends])[dist.rank()]
    scores, y = (each[begin : ends[dist.rank()]] for each in data())
    return list(zip(scores.split(8), y.split(8), strict=True)) if len(y) else []


@contextmanager
def counted(calls):
    """Notes the collectives of torch.distributed."""
    originals = {name: getattr(torch.distributed, name) for name in COLLECTIVES}

    def noting(name):
        def call(*arguments, **options):
            calls.append(name)
            return originals[name](*arguments, **options)

        return call

    for name in COLLECTIVES:
        setattr(torch.distributed, name, noting(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(torch.distributed, name, original)


def engine_of(metrics):
    engine = Engine(lambda engine, batch: batch, training=False)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    return engine


def measure(batches, metrics, max_epochs=2):
    """`state.metrics` after two epochs. A rank without batches ends its epochs as they begin."""
    engine = engine_of(metrics)
    if not batches:
        engine.add_event_handler(Events.EPOCH_STARTED, engine.terminate_epoch)
    values = engine.run(batches or data(), max_epochs=max_epochs).metrics
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def all_metrics():
    p, r = Precision(average="macro"), Recall(average="macro")
    return {
        "accuracy": Accuracy(),
        "loss": Loss(nn.functional.cross_entropy),
        "precision": Precision(),
        "recall": Recall(average="weighted"),
        "f1": 2 * p * r / (p + r),
        "matrix": ConfusionMatrix(CLASSES),
        "mse": MeanSquaredError(lambda output: (output[0], nn.functional.one_hot(output[1], CLASSES))),
        "mean": Mean(lambda output: output[0]),
    }


def count_collectives(metrics, batches):
    calls = []
    with counted(calls):
        measure(batches, metrics, max_epochs=1)
    return calls


def smoothing():
    """Each rank averages its own constant, 10 * (rank + 1), seen at iterations and at the end of each epoch."""
    engine, seen, calls = engine_of({}), [], []
    for name in ("smooth", "other"):
        RunningAverage(output_transform=lambda output: 10.0 * (dist.rank() + 1), epoch_bound=False).attach(engine, name)
    note = lambda: seen.append(engine.state.metrics["smooth"])  # noqa: E731
    engine.add_event_handler(Events.ITERATION_COMPLETED, note)
    engine.add_event_handler(Events.EPOCH_COMPLETED, note, order=Order.SAVERS)
    with counted(calls):
        engine.run([0, 0], max_epochs=2)
    return {"seen": seen, "collectives": calls}


def median(**options):
    return EpochMetric(lambda y_pred, y: (y_pred.sum(1).sort().values * 10).tolist(), **options)


def error_of(function, kinds=(ValueError,)):
    try:
        function()
    except kinds as error:
        return f"{type(error).__name__}: {error}"
    return None


def mixed_classes():
    outputs = [(torch.rand(6, 3 + dist.rank()), torch.zeros(6, dtype=torch.int64))]
    return measure(outputs, {"precision": Precision()})


def scenarios():
    ranks = dist.world_size()
    uneven = [SAMPLES - 5 * (ranks - 1)] + [5] * (ranks - 2)
    one_empty = [0] + [SAMPLES // (ranks - 1)] * (ranks - 2) if ranks > 1 else []
    accuracy = Accuracy()
    measure(shard(uneven), {"accuracy": accuracy})
    return {
        "uneven": measure(shard(uneven), all_metrics()),
        "one empty": measure(shard(one_empty), all_metrics()),
        "uneven values": measure(shard(uneven), {"values": Values()}),
        "values, one empty": measure(shard(one_empty), {"values": Values()}),
        "collectives": count_collectives(all_metrics(), shard(uneven)),
        "collectives of counts": count_collectives(
            {"accuracy": Accuracy(), "matrix": ConfusionMatrix(4)}, shard(uneven)
        ),
        "collectives of values": count_collectives({"a": Values()["median"], "b": Values()["median"]}, shard(uneven)),
        "batches": len(shard(uneven)) if ranks > 1 else 13,
        "parts": measure(shard(uneven), {"parts": Parts()}),
        "parts, one empty": measure(shard(one_empty), {"parts": Parts()}),
        "on rank zero": measure(shard(one_empty), {name: median(on_rank_zero=True) for name in ("first", "second")}),
        "on every rank": measure(shard(one_empty), {name: median() for name in ("first", "second")}),
        "fails on rank zero": error_of(
            lambda: measure(shard(uneven), {"a": EpochMetric(raising, on_rank_zero=True)}), (ValueError, RuntimeError)
        ),
        "nobody on rank zero": measure([], {"a": median(on_rank_zero=True)}),
        "collectives on rank zero": count_collectives({"a": median(on_rank_zero=True), "b": Accuracy()}, shard(uneven)),
        "nobody": measure([], {"accuracy": Accuracy()}),
        "mixed classes": error_of(mixed_classes) if ranks > 1 else None,
        "own value": accuracy.compute().item(),
        "own shard": (torch.cat([x.argmax(1) == y for x, y in shard(uneven)]).double().mean()).item(),
        "smoothing": smoothing(),
    }


if __name__ == "__main__":
    # Not printed: where Python's output is unbuffered, a pipe may take only the beginning of a long line.
    Path(sys.argv[2]).write_text(json.dumps(dist.launch(scenarios, int(sys.argv[1]))))
