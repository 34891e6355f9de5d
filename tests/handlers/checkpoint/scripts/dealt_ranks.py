"""Runs that go on with another number of ranks, from an open accumulation window in mid-epoch or from an epoch's end:
`dealt_ranks.py NPROC DIRECTORY SCENARIO...`.
"""

import contextlib
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))

from scenarios import main

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update
from leyden.handlers import DealData, GradientAccumulation
from leyden.handlers.checkpoint import Checkpoint
from leyden.metrics import Mean, Metric, RunningAverage


class Stopped(Exception):
    pass


class Seen(Metric):
    required_output_keys = None

    def __init__(self):
        super().__init__()
        self.add_state("values", torch.empty(0), "cat")

    def update(self, output):
        self.values.append(output.reshape(1))

    def compute(self):
        return {"values": torch.cat(self.values).tolist()}


def run(batches, *handlers, stop=None, epochs=1):
    """Each rank takes its own batches, numbers; the gradient of one is that number. What is open as the run begins, and
    what the epoch brought.
    """
    model = nn.Linear(1, 1, bias=False)
    engine = Engine(lambda engine, batch: step(batch))
    update = Update(engine, model, torch.optim.SGD(model.parameters(), 0.1))
    update.independent = True

    def step(batch):
        number = torch.tensor([[float(batch)]])
        with update.forward():
            loss = model(number).sum()
        update.backward(loss)
        return number.sum()

    Mean().attach(engine, "mean")
    Seen().attach(engine, "all")
    smooth = RunningAverage(alpha=0.5)
    smooth.attach(engine, "smooth")
    engine.attach(GradientAccumulation(4), *handlers)
    told = {}

    @engine.on(Events.STARTED)
    def look():
        told["smooth"] = (smooth.value / smooth.ranks).item() if smooth.ranks else None
        told["gradient"] = None if model.weight.grad is None else model.weight.grad.item()
        told["done"] = update.rank_state_dict().get("done")

    if stop is not None:

        @engine.on(Events.ITERATION_COMPLETED(once=stop), order=20)
        def leave():
            look()
            raise Stopped

    with contextlib.suppress(Stopped):
        engine.run(batches, max_epochs=epochs)
    metrics = engine.state.metrics
    return told | {name: metrics[name] for name in ("mean", "values") if name in metrics}


def stopped(base):
    """Of rank r the batches 10r + 1, 10r + 2, ..., of which it sees two, in a window of four."""
    saving = Checkpoint(base / "stopped", event=Events.ITERATION_COMPLETED(once=2))
    return run([10 * dist.rank() + number for number in (1, 2, 3, 4)], saving, stop=2)


def ended(base):
    """At the end of an epoch of four batches, a window, nothing is open."""
    return run([10 * dist.rank() + number for number in (1, 2, 3, 4)], Checkpoint(base / "ended"))


def going_on(base, kept, epochs):
    """Goes on with the batches 3 and 4 on each rank; which of the ranks' own files each opened."""
    opened = []

    def hear(event, arguments):
        if event == "open" and isinstance(arguments[0], str | Path):
            path = Path(arguments[0])
            if path.is_relative_to(base / kept) and path.suffix == ".state":
                opened.append(int(path.stem.removeprefix("rank-")))

    sys.addaudithook(hear)
    there = base / f"after {kept} of {dist.world_size()}"
    told = run([1, 2, 3, 4], Checkpoint(there, event=Events.COMPLETED, resume=base / kept), epochs=epochs)
    return told | {"opened": sorted(opened)}


def from_open(base):
    return going_on(base, "stopped", 1)


def from_end(base):
    return going_on(base, "ended", 2)


def leave():
    raise Stopped


def samples(size, checkpoint, *, stop=False):
    """Goes through 32 samples; what this rank sees of them, and what it is told of the script."""
    seen = []
    engine = Engine(lambda engine, batch: seen.extend(batch.tolist()), training=False)
    engine.attach(DealData(), checkpoint)
    if stop:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), leave, order=20)
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(Stopped):
        warnings.simplefilter("always")
        engine.run(DataLoader(torch.arange(32), batch_size=size), max_epochs=1)
    return {"seen": seen, "said": [str(each.message) for each in caught if "the script is not" in str(each.message)]}


def batches_of_4(base):
    return samples(4, Checkpoint(base / "fours", event=Events.ITERATION_COMPLETED(once=2)), stop=True)


def batches_of_8(base):
    return samples(8, Checkpoint(base / "eights", resume=base / "fours"))


def batches_of_4_alone(base):
    return samples(4, Checkpoint(base / "alone", resume=base / "fours"))


if __name__ == "__main__":
    main(globals())
