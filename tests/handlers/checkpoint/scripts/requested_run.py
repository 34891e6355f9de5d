"""Two ranks, of which one asks for a save, and then a clock does: `requested_run.py DIRECTORY`."""

import sys
import time
from pathlib import Path

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers import DataParallel
from leyden.handlers.checkpoint import Checkpoint


def run(checkpoint, asks):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss())
    trainer.attach(DataParallel(deal="batches"), checkpoint)
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: time.sleep(0.01))
    if asks:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=20), checkpoint.request)
    trainer.run([(torch.ones(4, 4), torch.zeros(4, dtype=torch.int64))] * 300, max_iters=120)


def play(base):
    run(Checkpoint(base / "asked", every=100, keep=None), asks=dist.rank() == 1)
    run(Checkpoint(base / "clock", every_minutes=0.3 / 60, keep=None), asks=False)


if __name__ == "__main__":
    dist.launch(play, 2, args=(Path(sys.argv[1]),), backend="gloo", timeout=30)
