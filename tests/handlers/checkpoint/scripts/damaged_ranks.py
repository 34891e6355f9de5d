"""Three ranks go on from checkpoints of which one of them finds its own part damaged: `damaged_ranks.py DIRECTORY`."""

import json
import shutil
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update
from leyden.handlers import Checkpoint

OLDER, NEWEST = "epoch=0001-iteration=00000002", "epoch=0002-iteration=00000004"


def run(directory, epochs, **options):
    """(iteration it stood at, what the run ended with, what was warned of, seconds)."""
    model = nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1)).independent = True
    engine.attach(Checkpoint(directory, **options))
    began, stood = time.monotonic(), []
    engine.add_event_handler(Events.STARTED, lambda: stood.append(engine.state.iteration))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            engine.run([0, 0], max_epochs=epochs)
            error = None
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
    told = [str(each.message) for each in caught if "a damaged checkpoint" in str(each.message)]
    return stood, error, told, time.monotonic() - began


def damage(folder, how):
    """By rank 0, while the others wait."""
    if dist.rank() == 0:
        path = folder / "rank-00002.state"
        if how == "missing":
            path.unlink()
        elif how == "altered":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        else:
            shutil.copy(folder / "rank-00001.state", path)
    dist.barrier()


def go(base):
    run(base / "whole", 2)
    told = {}
    for how in ("missing", "altered", "another's"):
        kept = base / how
        if dist.rank() == 0:
            shutil.copytree(base / "whole", kept)
        dist.barrier()
        damage(kept / NEWEST, how)
        told[how] = {
            "named": run(base / f"named {how}", 3, resume=kept / NEWEST),
            "auto": run(kept, 1, resume="auto"),
        }
        damage(kept / OLDER, how)
        told[how]["none"] = run(kept, 1, resume="auto")
    return told


if __name__ == "__main__":
    print(json.dumps(dist.launch(go, 3, args=(Path(sys.argv[1]),), backend="gloo", timeout=60)))
