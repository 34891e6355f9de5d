"""Runs over several ranks that stop inside an accumulation window: `window_ranks.py NPROC DIRECTORY SCENARIO...`."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from scenarios import main

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers import EMA, DataParallel, GradientAccumulation
from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.checkpoint.files.contents import CheckpointContents

STOP = 5  # iterations, in windows of 3


def numbers(tensors):
    tensors = [tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return [value for tensor in tensors for value in tensor.detach().reshape(-1).tolist()]


class Stopped(Exception):
    pass


def run(*handlers, stop=None, shard=False):
    """Trains for 12 iterations, or until `stop` does what it does after iteration STOP; gives what is to be told."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 2))
    if shard:
        for layer in (model[0], model[2], model):
            fully_shard(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer = supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    update = trainer.updates["default"]
    losses, found = [], {}
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output.item()))
    trainer.attach(*([] if shard else [DataParallel(deal="batches")]), GradientAccumulation(3, tail="carry"), *handlers)

    @trainer.on(Events.STARTED)
    def look():
        found.update(gradients=numbers(update.gradients()), done=update.rank_state_dict().get("done"))

    if stop is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=STOP), stop, order=20)
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(6, 4, generator=generator), torch.randint(0, 2, (6,), generator=generator)) for _ in range(8)]
    torch.manual_seed(100 + dist.rank())
    try:
        trainer.run(data, max_epochs=3, epoch_length=4)
    except Stopped:
        look()
    return {"losses": losses, "weights": numbers(model.parameters()), **found}


def leave():
    raise Stopped


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def saving(base, name):
    return Checkpoint(base / name, event=Events.ITERATION_COMPLETED, keep=None)


def going_on(base, name):
    there = base / f"after {name} of {dist.world_size()}"
    return Checkpoint(there, event=Events.COMPLETED, resume=base / name)


def whole(base):
    return run()


def stopped(base):
    return run(saving(base, "stopped"), stop=leave)


def resumed(base):
    return run(going_on(base, "stopped"))


def killed(base):
    return run(saving(base, "killed"), stop=kill)


def after_kill(base):
    return run(going_on(base, "killed"))


def taken_over(base):
    """Where another number of ranks stands before its first batch."""
    return run(going_on(base, "stopped"), Leaves())


class Leaves:
    def attach(self, engine):
        engine.add_event_handler(Events.STARTED, leave, order=20)


def sharded_whole(base):
    return run(shard=True)


def sharded_stopped(base):
    return run(saving(base, "sharded"), stop=leave, shard=True)


def sharded_resumed(base):
    return run(going_on(base, "sharded"), shard=True)


def sharded_averages(base):
    """A run with averages of shards, and one that goes on from its middle; which averages came as shards."""
    spread = []
    load = CheckpointContents.load

    def noting(contents, like=None):
        spread.extend(name for name in like if "averages" in name)
        return load(contents, like)

    averages = [EMA(0.9), EMA(0.9)]
    reference = run(averages[0], shard=True)
    run(EMA(0.9), saving(base, "averages"), stop=leave, shard=True)
    CheckpointContents.load = noting
    try:
        resumed = run(averages[1], going_on(base, "averages"), shard=True)
    finally:
        CheckpointContents.load = load
    whole, again = (numbers(average.averaged().values()) for average in averages)
    return {"same": resumed["weights"] == reference["weights"] and whole == again, "spread": sorted(spread)}


if __name__ == "__main__":
    main(globals())
