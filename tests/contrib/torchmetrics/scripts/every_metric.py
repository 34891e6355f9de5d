"""Measures with every class of torchmetrics: `python every_metric.py RANKS FILE` writes what each rank found."""

import json
import sys
from pathlib import Path

import torch
from cases import CASES

from leyden import distributed as dist
from leyden.engine import Engine, Events

SHARDS = {
    2: {"uneven": [[0, 1, 2, 3], [4, 5]], "first empty": [[], [0, 1, 2, 3, 4, 5]]},
    4: {"uneven, one empty": [[0, 1], [2, 3, 4], [], [5]]},
}
"""The numbers of the batches of each rank, by the number of ranks."""
BATCHES = range(6)
ON_TWO_RANKS = ["NormalizedRootMeanSquaredError"]
"""Those that torchmetrics itself can't put together from more ranks."""
NOT_ON_AN_EMPTY_RANK = [
    "FrechetInceptionDistance", "MemorizationInformedFrechetInceptionDistance",
    "RootMeanSquaredErrorUsingSlidingWindow",
]  # fmt: skip
"""Those that need, beside their states, a batch that they saw."""


def plain(value):
    """Lists in place of tensors and mappings."""
    if isinstance(value, dict):
        return [plain(value[key]) for key in sorted(value)]
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def alone(batches=BATCHES, names=tuple(CASES)):
    """The values of torchmetrics itself, in one process that sees these batches."""
    values = {}
    for name in names:
        make, batch = CASES[name]
        metric = make()
        for index in batches:
            metric.update(*batch(index))
        values[name] = plain(metric.compute())
    return values


def left_out(shards):
    """The names of those that these shards are too many or too empty for."""
    return [*(NOT_ON_AN_EMPTY_RANK if [] in shards else ()), *(ON_TWO_RANKS if len(shards) > 2 else ())]


def measuring(without=(), training=False):
    """An engine that measures with all of them, each with what it takes of a batch's number."""
    engine = Engine(lambda engine, index: int(index), training=training)
    for name, (make, batch) in CASES.items():
        if name not in without:
            engine.attach_metric(name, make(), output_transform=batch)
    return engine


def found():
    values = {}
    for layout, shards in SHARDS[dist.world_size()].items():
        engine, mine = measuring(left_out(shards)), shards[dist.rank()]
        if not mine:
            engine.add_event_handler(Events.EPOCH_STARTED, engine.terminate_epoch)
        metrics = engine.run(mine or [0]).metrics
        values[layout] = {name: plain(metrics[name]) for name in CASES if name in metrics}
    values["refused"] = {name: refusal(name) for name in ON_TWO_RANKS}
    return values


def refusal(name):
    """What attaching it says here; None if nothing."""
    try:
        measuring([each for each in CASES if each != name])
    except ValueError as error:
        return str(error)
    return None


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(dist.launch(found, int(sys.argv[1]), timeout=60)))
