"""A run over 12 batches that measures with every class of torchmetrics, but those LEFT_OUT.

`python goes_on.py RANKS FOLDER FILE STOP LEFT_OUT...` goes on from the newest checkpoint in the folder, one for every
second iteration, and writes what each rank found; rank 0 is killed once it has done STOP iterations, if that is not 0.
"""

import json
import os
import signal
import sys
from pathlib import Path

from every_metric import CASES, measuring, plain
from torch.utils.data import DataLoader

from leyden import distributed as dist
from leyden.engine import Events
from leyden.handlers import Checkpoint, DealData

BATCHES = 12


def run(folder, stop, left_out):
    engine = measuring(left_out, training=True)
    checkpoint = Checkpoint(folder, event=Events.ITERATION_COMPLETED(every=2), resume="auto", asynchronous=False)
    engine.attach(DealData(), checkpoint)
    begun = []
    engine.add_event_handler(Events.ITERATION_STARTED(once=1), lambda: begun.append("anew"))
    if stop and dist.rank() == 0:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), lambda: os.kill(os.getpid(), signal.SIGKILL))
    metrics = engine.run(DataLoader(range(BATCHES), batch_size=1), max_epochs=1).metrics
    return begun or [{name: plain(metrics[name]) for name in CASES if name in metrics}]


if __name__ == "__main__":
    ranks, folder, file, *options = sys.argv[1:]
    stop, left_out = int(options[0]), options[1:]
    found = dist.launch(run, int(ranks), args=(folder, stop, left_out), timeout=60)
    Path(file).write_text(json.dumps(found))
