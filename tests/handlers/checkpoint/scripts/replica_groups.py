"""Four ranks, two replicas of two shards each: `replica_groups.py DIRECTORY` saves into "still" and "beside",
the latter while training goes on beside a slow disk, and prints how many shards each rank was asked to write.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.checkpoint.saving import save as saving


def run(directory, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "shard"))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss())
    trainer.attach(Checkpoint(directory, event=Events.ITERATION_COMPLETED(once=3), keep=None, **options))
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(8, 4, generator=generator), torch.randint(0, 2, (8,), generator=generator)) for _ in range(9)]
    trainer.run(data, max_epochs=1)


def play(base):
    shards = []
    pieces_of = saving.pieces_of

    def counted(tensors, *, whole):
        pieces = pieces_of(tensors, whole=whole)
        shards.append(sum(piece.name.startswith("models") for piece in pieces))
        return pieces

    saving.pieces_of = counted
    run(base / "still", asynchronous=False)
    flush = os.fsync
    os.fsync = lambda descriptor: time.sleep(0.1) or flush(descriptor)
    run(base / "beside")
    return max(shards)


if __name__ == "__main__":
    print(json.dumps(dist.launch(play, 4, args=(Path(sys.argv[1]),), backend="gloo", timeout=60)))
