"""A run over 12 batches that measures with the metrics of native_ranks.py.

`python killed_run.py RANKS FOLDER FILE STOP` goes on from the newest checkpoint in the folder, one for every second
iteration, and writes what each rank found; rank 0 is killed once it has done STOP iterations, if that is not 0.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from native_ranks import all_metrics, data
from torch.utils.data import DataLoader

from leyden import distributed as dist
from leyden.engine import Engine, Events
from leyden.handlers import Checkpoint, DealData

BATCHES = 12


def run(folder, stop):
    batches = list(zip(*(each.split(9) for each in data()), strict=True))
    assert len(batches) == BATCHES
    engine = Engine(lambda engine, index: batches[int(index)])
    for name, metric in all_metrics().items():
        metric.attach(engine, name)
    if folder is not None:
        each_second = Events.ITERATION_COMPLETED(every=2)
        engine.attach(DealData(), Checkpoint(folder, event=each_second, resume="auto", asynchronous=False))
    if stop and dist.rank() == 0:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), lambda: os.kill(os.getpid(), signal.SIGKILL))
    metrics = engine.run(DataLoader(range(BATCHES), batch_size=1), max_epochs=1).metrics
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in metrics.items()}


def scenarios():
    return run(None, 0)


if __name__ == "__main__":
    ranks, folder, file, stop = sys.argv[1:]
    Path(file).write_text(json.dumps(dist.launch(run, int(ranks), args=(folder, int(stop)), timeout=60)))
