"""Two ranks catch an error of a batch on both of them and go on with the next; prints the weights beside those of one
process that never saw the batch.
"""

import json
import warnings

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.handlers import DataParallel, GradientAccumulation


class Breaks(torch.autograd.Function):
    """Fails on its way back, when the gradients of the layers behind it are there already."""

    @staticmethod
    def forward(ctx, x, broken):
        ctx.broken = broken
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.broken:
            raise MemoryError
        return gradient, None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, breaks=None):
        x = self.first(x)
        if breaks == "forward":
            raise MemoryError
        return self.second(Breaks.apply(x, breaks == "backward")).square().mean()


def batches():
    return list(torch.randn(7, 2, 3, 4, generator=torch.Generator().manual_seed(1)))


def train(kind, breaks, window):
    model = Net()
    if kind == "shards":
        fully_shard(model.first)
        fully_shard(model.second)
        fully_shard(model)

    def step(engine, batch):
        broken = breaks if engine.state.iteration == 2 else None
        try:
            with update.forward():
                loss = model(batch[dist.rank()], broken)
            update.backward(loss)
        except MemoryError:
            update.abandon()

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.5))
    handlers = [GradientAccumulation(window)] if window > 1 else []
    engine.attach(*([DataParallel(deal="nothing")] if kind == "replicas" else []), *handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine.run(batches(), max_epochs=1)
    return weights(model)


def weights(model):
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return [float(each.detach().double().norm()) for each in whole]


def by_hand(window, lost):
    """Steps with the mean of each window of what was not lost."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    kept = [batch for place, batch in enumerate(batches()) if place not in lost]
    for start in range(0, len(kept), window):
        part = kept[start : start + window]
        optimizer.zero_grad()
        for batch in part:
            (sum(model(each) for each in batch) / 2 / len(part)).backward()
        optimizer.step()
    return weights(model)


def cases():
    found = {}
    for kind in ("replicas", "shards"):
        for breaks in ("forward", "backward"):
            for window in (1, 2):
                lost = (1,) if window == 1 else (0, 1)  # what came before it in its window goes with it
                name = f"{kind}, {breaks}, window of {window}"
                found[name] = [train(kind, breaks, window), by_hand(window, lost)]
    return found


if __name__ == "__main__":
    print(json.dumps(dist.launch(cases, 2)))
