"""Runs over several ranks: `ranks_run.py NPROC DIRECTORY SCENARIO...` prints, as JSON, what each rank saw of each.

A run is told by the exact losses of each rank and a digest of its whole weights and optimizer state.
"""

import hashlib
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from scenarios import main

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers import DataParallel
from leyden.handlers.checkpoint import Checkpoint


def network():
    return nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.Linear(7, 2))


def digest(value, hashed=None):
    """Of nested tensors and numbers, gathered from all ranks where they are sharded."""
    hashed = hashed or hashlib.sha256()
    if isinstance(value, DTensor):
        digest(value.full_tensor(), hashed)
    elif isinstance(value, torch.Tensor):
        hashed.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        digest(list(value.items()), hashed)
    elif isinstance(value, list | tuple):
        for item in value:
            digest(item, hashed)
    else:
        hashed.update(repr(value).encode())
    return hashed.hexdigest()


def run(epochs, *handlers, shard=False):
    """Trains for `epochs` and gives what is to be told."""
    torch.manual_seed(0)
    model = network()
    if shard:
        for layer in (model[0], model[3], model):
            fully_shard(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer = supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output.item().hex()))
    trainer.attach(*([] if shard else [DataParallel()]), *handlers)
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(24, 4, generator=generator), torch.randint(0, 2, (24,), generator=generator))
    torch.manual_seed(100 + dist.rank())
    trainer.run(DataLoader(data, batch_size=4), max_epochs=epochs)
    # Each rank has statistics of its own in a batch norm; the checkpoint has those of rank 0.
    learned = {name: digest(value) for name, value in model.state_dict().items() if "running" not in name}
    return {"losses": losses, "weights": learned, "optimizer": digest(list(optimizer.state_dict()["state"].values()))}


def whole(base):
    return run(4)


def first(base):
    return run(2, Checkpoint(base / "first"))


def second(base):
    return run(4, Checkpoint(base / f"second of {dist.world_size()}", resume=base / "first"))


def stands(base):
    """Where the run stands as it was restored: nothing is left to do."""
    return run(2, Checkpoint(base / f"stands of {dist.world_size()}", resume=base / "first"))


def sharded_whole(base):
    return run(4, shard=True)


def sharded_first(base):
    return run(2, Checkpoint(base / "sharded"), shard=True)


def sharded_second(base):
    return run(4, Checkpoint(base / "sharded second", resume=base / "sharded"), shard=True)


def sharded_stands(base):
    """The same, sharded again, or on one rank whole."""
    resume = Checkpoint(base / f"sharded stands of {dist.world_size()}", resume=base / "sharded")
    return run(2, resume, shard=dist.world_size() > 1)


class FailsOnLastRank:
    def state_dict(self):
        if dist.rank() == dist.world_size() - 1:
            raise OSError("no state on this rank")
        return {}

    def load_state_dict(self, state_dict):
        raise NotImplementedError


def told(*handlers):
    try:
        run(1, *handlers)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def fails_on_one_rank(base):
    return told(Checkpoint(base / "failing", extra={"item": FailsOnLastRank()}))


def fails_to_write(base):
    (base / "file").touch()
    return told(Checkpoint(base / "file" / "kept"))


if __name__ == "__main__":
    main(globals())
