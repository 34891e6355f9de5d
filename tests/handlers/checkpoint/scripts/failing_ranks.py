"""Restores that fail on one rank, and ranks whose models differ; run by every rank."""

import shutil
import sys
import time
from pathlib import Path

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.handlers import Checkpoint


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Item:
    def __init__(self, error=None, on=1):
        self.error = error if dist.rank() == on else None

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        if self.error is not None:
            raise self.error


def run(directory, extra=None, width=1, **options):
    """(what the run ended with, its notes, the seconds it took)."""
    model = nn.Sequential(nn.Linear(width, 1))
    engine = Engine(lambda engine, batch: None)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    update.independent = True
    engine.attach(Checkpoint(directory, extra={} if extra is None else {"item": extra}, **options))
    began = time.monotonic()
    try:
        engine.run([0], max_epochs=2 if "resume" in options else 1)
    except Exception as error:
        return f"{type(error).__name__}: {error}", getattr(error, "__notes__", []), time.monotonic() - began
    return None, [], time.monotonic() - began


def restores(base):
    run(base / "whole", Item())
    errors = {
        "of a handler": OSError("no room"),
        "that can't travel": Unpicklable("a", "b"),
        "on rank 0": ValueError("bad"),
    }
    return {
        name: run(base / name.replace(" ", "-"), Item(error, on=int(name != "on rank 0")), resume=base / "whole")
        for name, error in errors.items()
    }


def other_models(base):
    return run(base / "other", Item(), width=1 + dist.rank(), on_error="raise")


def go(base):
    return {"restores": restores(base), "other models": other_models(base)}


if __name__ == "__main__":
    import json

    told = dist.launch(go, 2, args=(Path(sys.argv[1]),), backend="gloo", timeout=40)
    shutil.rmtree(sys.argv[1])
    print(json.dumps(told))
