"""A run that is killed, stopped and starved by the tests: `run_to_kill.py '{"directory": ..., "log": ..., ...}'`.

Its log has one line for each event: "begins <iteration> <pid>", "<iteration> <exact loss>", "ended <digest of
weights>". A line is one write, and ends in " .": one that is still written, or that a signal cut at the end of a page,
does not, and a life begins on a line of its own. The environment variable SLOW_FSYNC is a number of seconds that each
flush to disk takes longer, so that a save can be met in its midst.
"""

import hashlib
import json
import os
import sys
import time

import torch
import torch._dynamo  # by the first optimizer, and the next by the first save: here, a forkserver does it once for all
import torch.distributed.checkpoint.hf_storage
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers import DataParallel
from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.preemption import Preemption

SAMPLES, BATCH = 70, 4
_fsync = os.fsync


def slow_flushes(seconds):
    def fsync(descriptor):
        time.sleep(seconds)
        _fsync(descriptor)

    os.fsync = fsync


def make_data():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(SAMPLES, 8, generator=generator), torch.randint(0, 2, (SAMPLES,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)


def digest(model):
    hashed = hashlib.sha256()
    for value in model.state_dict().values():
        hashed.update(value.numpy().tobytes())
    return hashed.hexdigest()


def train(
    log,
    max_epochs,
    directory=None,
    every=5,
    slow_fsync=0.0,
    step_seconds=0.0,
    width=32,
    place=None,
    timeout=20,
    errors=None,
    preemption=False,
    checkpoint=None,
):
    """Trains, with checkpoints if there is a directory.

    slow_fsync, step_seconds: how much longer each flush and each step takes. place: the environment of a rank.
    timeout: how long ranks wait for each other. errors: a file for what goes to stderr. preemption: whether a
    Preemption listens. checkpoint: further arguments of Checkpoint.
    """
    if errors is not None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    if place is not None:
        os.environ.update(place)
        dist.initialize("gloo", timeout=timeout)
    if slow_fsync:
        slow_flushes(slow_fsync)
    file = os.open(f"{log}.{dist.rank()}" if dist.world_size() > 1 else log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, width), nn.Dropout(0.2), nn.Linear(width, 2))
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss())
    trainer.attach(DataParallel(), *([Preemption()] if preemption else []))
    if directory is not None:
        event = Events.ITERATION_COMPLETED(every=every)
        trainer.attach(Checkpoint(directory, event=event, resume="auto", **{"keep": 2, **(checkpoint or {})}))
    torch.manual_seed(100 + dist.rank())

    def note(*words):
        os.write(file, f"{' '.join(map(str, words))} .\n".encode())

    trainer.add_event_handler(Events.STARTED, lambda: note("\nbegins", trainer.state.iteration, os.getpid()))

    @trainer.on(Events.ITERATION_COMPLETED)
    def after_a_step():
        note(trainer.state.iteration, trainer.state.output.item().hex())
        if step_seconds:
            time.sleep(step_seconds)

    trainer.run(make_data(), max_epochs=max_epochs)
    note("ended", digest(model))
    os.close(file)
    if place is not None:
        dist.finalize()


if __name__ == "__main__":
    if "SLOW_FSYNC" in os.environ:
        slow_flushes(float(os.environ["SLOW_FSYNC"]))
    train(**json.loads(sys.argv[1]))
