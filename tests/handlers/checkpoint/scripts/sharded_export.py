"""`sharded_export.py DIRECTORY`: two ranks export a sharded model with a tied weight, alive and out of a checkpoint.

Prints, as JSON, for each rank whether the files, loaded into a sharded model again, gave the same weights.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.handlers.checkpoint import Checkpoint, export_weights, load_weights


def sharded(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    model[2].weight = model[1].weight
    return fully_shard(model)


def play(base):
    model = sharded(0)
    live = export_weights(model, base / "live.safetensors")
    engine = Engine(lambda engine, batch: None)
    Update(engine, model, torch.optim.SGD(model.parameters()))
    engine.attach(Checkpoint(base / "kept"))
    engine.run([0])
    kept = export_weights(base / "kept", base / "kept.safetensors")
    dist.barrier()
    same = []
    for file in (live, kept):
        other = sharded(1)
        load_weights(file, other)
        pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
        same.append(all(torch.equal(a.to_local(), b.to_local()) for a, b in pairs))
    return same


if __name__ == "__main__":
    print(json.dumps(dist.launch(play, 2, args=(Path(sys.argv[1]),), backend="gloo", timeout=60)))
