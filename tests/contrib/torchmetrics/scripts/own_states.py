"""A torchmetrics metric of one's own, with states of every kind.

`python own_states.py RANKS FILE` writes what each rank found, by how many batches the ranks had.
"""

import json
import sys
from pathlib import Path

import torch
import torchmetrics

from leyden import distributed as dist
from leyden.engine import Engine, Events

SHARDS = {"uneven": [[1.0, 2.0], [-4.0]], "second empty": [[1.0, 2.0], []], "first empty": [[], [-4.0]]}
"""The batches of each rank."""


class Own(torchmetrics.Metric):
    """Of numbers, in small and odd types."""

    def __init__(self):
        super().__init__()
        self.add_state("any_negative", torch.tensor(False), dist_reduce_fx="max")
        self.add_state("all_positive", torch.tensor(True), dist_reduce_fx="min")
        self.add_state("ranks_with_data", torch.tensor(False), dist_reduce_fx="sum")
        self.add_state("hundreds", torch.tensor(0, dtype=torch.uint8), dist_reduce_fx="sum")
        self.add_state("most", torch.tensor(0, dtype=torch.int8), dist_reduce_fx="max")
        self.add_state("product", torch.ones(1), dist_reduce_fx=lambda of_ranks: of_ranks.prod(0))
        self.add_state("seen", [], dist_reduce_fx=None)
        self.add_state("ordered", [], dist_reduce_fx=lambda found: sorted(found, key=float))

    def update(self, number):
        self.any_negative = self.any_negative | (number < 0)
        self.all_positive = self.all_positive & (number > 0)
        self.ranks_with_data = torch.tensor(True)
        self.hundreds = self.hundreds + 100
        self.most = torch.maximum(self.most, number.to(torch.int8))
        self.product = self.product * number
        self.seen.append(number)
        self.ordered.append(number)

    def compute(self):
        names = ("any_negative", "all_positive", "ranks_with_data", "hundreds", "most", "product")
        lists = {name: [float(each) for each in getattr(self, name)] for name in ("seen", "ordered")}
        return {name: float(getattr(self, name)) for name in names} | lists


def scenarios():
    found = {}
    for layout, shards in SHARDS.items():
        engine = Engine(lambda engine, number: torch.tensor(number), training=False)
        engine.attach_metric("own", Own())
        batches = shards[dist.rank()]
        if not batches:
            engine.add_event_handler(Events.EPOCH_STARTED, engine.terminate_epoch)
        found[layout] = engine.run(batches or [0.0]).metrics["own"]
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(dist.launch(scenarios, int(sys.argv[1]), timeout=30)))
