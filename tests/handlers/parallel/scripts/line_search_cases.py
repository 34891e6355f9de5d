"""LBFGS on ranks: its line search compares losses, of which each rank has its own."""

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.handlers import DataParallel


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def batches():
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(2, 5, 4, generator=generator), torch.randn(2, 5, 2, generator=generator)) for _ in range(4)]


def lbfgs(model, search):
    return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5, line_search_fn=search)


def trained(search):
    """The losses that the steps gave, and the weights."""
    model, losses = net(), []

    def step(engine, batch):
        x, y = batch
        losses.append(update.step(lambda: nn.functional.mse_loss(model(x), y)).item())

    engine = Engine(step)
    update = Update(engine, model, lbfgs(model, search))
    engine.attach(DataParallel(deal=False))
    engine.run([(x[dist.rank()], y[dist.rank()]) for x, y in batches()], max_epochs=2)
    return losses, [each.tolist() for each in model.parameters()]
