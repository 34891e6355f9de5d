"""Two ranks train models that the user sharded or wrapped; prints what each says of weights."""

import json

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.handlers import DataParallel, GradientAccumulation


def train(*handlers, weight=None, wrapped=False):
    model = nn.Linear(4, 4)
    if wrapped:
        model = DistributedDataParallel(model)
    else:
        fully_shard(model)

    def step(engine, batch):
        with update.forward():
            loss = model(batch).square().mean()
        update.backward(loss, weight=weight)

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    engine.attach(*handlers)
    try:
        engine.run([torch.randn(2, 4)] * 2, max_epochs=1)
    except RuntimeError as error:
        return str(error), update.steps
    return "trained", update.steps


def cases():
    by_handler, steps = train(GradientAccumulation(2, weight=len))
    return {
        "by the handler": by_handler,
        "steps when refused": steps,
        "by backward": train(weight=2.0)[0],
        "without": train()[0],
        "wrapped, by the handler": train(GradientAccumulation(2, weight=len), wrapped=True),
        "wrapped, by backward": train(weight=2.0, wrapped=True),
        "wrapped, with replicas": train(DataParallel(deal=False), weight=2.0, wrapped=True)[0],
        "wrapped, without": train(wrapped=True)[0],
    }


if __name__ == "__main__":
    print(json.dumps(dist.launch(cases, 2)))
