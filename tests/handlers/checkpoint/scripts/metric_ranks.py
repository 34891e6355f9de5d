"""Metrics over several ranks, stopped in mid-epoch: `metric_ranks.py NPROC DIRECTORY SCENARIO...`."""

import contextlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from scenarios import main

from leyden import distributed as dist
from leyden.engine import Engine, Events
from leyden.handlers.checkpoint import Checkpoint
from leyden.metrics import Mean, Metric, RunningAverage


class Stopped(Exception):
    pass


class Seen(Metric):
    required_output_keys = None

    def __init__(self):
        super().__init__()
        self.add_state("values", torch.empty(0), "cat")
        self.add_state("largest", torch.tensor(-torch.inf), "max")

    def update(self, output):
        self.values.append(output.reshape(1))
        self.largest = torch.maximum(self.largest, output)

    def compute(self):
        return {"values": torch.cat(self.values).tolist(), "most": self.largest.item()}


def run(batches, *handlers, stop=None):
    """Each rank measures its batches; what it sees of them, and of the epoch."""
    engine = Engine(lambda engine, batch: None if batch is None else torch.tensor(float(batch)), training=False)
    Mean().attach(engine, "mean")
    smooth = RunningAverage(alpha=0.5)
    smooth.attach(engine, "smooth")
    Seen().attach(engine, "all")
    engine.attach(*handlers)
    seen, first = [], []

    @engine.on(Events.ITERATION_COMPLETED)
    def look():
        seen.append(engine.state.metrics["smooth"])

    @engine.on(Events.STARTED)
    def begin():
        first.append((smooth.value / smooth.ranks).item() if smooth.ranks else None)

    if stop is not None:

        @engine.on(Events.ITERATION_COMPLETED(once=stop), order=20)
        def leave():
            raise Stopped

    with contextlib.suppress(Stopped):
        engine.run(batches, max_epochs=1)
    metrics = engine.state.metrics
    told = {name: metrics[name] for name in ("mean", "smooth", "values", "most") if name in metrics}
    return told | {"seen": seen[-2:], "smooth at first": first[0]}


def mine():
    return list(range(8))[dist.rank() :: dist.world_size()]


def whole(base):
    return run(mine()) | {"smooth at first": None}


def saving(base):
    return Checkpoint(base / "stopped", event=Events.ITERATION_COMPLETED(once=2))


def going_on(base):
    there = base / f"after of {dist.world_size()}"
    return Checkpoint(there, event=Events.COMPLETED, resume=base / "stopped")


def stopped(base):
    return run(mine(), saving(base), stop=2)


def resumed(base):
    return run(mine(), going_on(base)) | {"smooth at first": None}


def taken_over(base):
    """Another number of ranks, whose data are what is left: rank 0 sees it all."""
    left = list(range(4, 8)) if dist.rank() == 0 else []
    # The first two batches are those that were seen.
    return run([None, None, *left], going_on(base))


if __name__ == "__main__":
    main(globals())
