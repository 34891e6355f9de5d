"""Searches on two ranks: each function is run by every rank, and gives plain values for the test to judge."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update
from leyden.handlers import DataParallel
from leyden.handlers.searching import BatchSizeFinder, LearningRateFinder

loss_fn = nn.MSELoss()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))


def data():
    generator = torch.Generator().manual_seed(1)
    samples = TensorDataset(torch.randn(208, 6, generator=generator), torch.randn(208, 2, generator=generator))
    return DataLoader(samples, batch_size=5, shuffle=True)


def train(*handlers, fits=None):
    """Weights after a run in which a rank's memory ends above `fits` samples, and the sizes of its batches."""
    model, sizes = net(), []

    def process(engine, batch):
        x, y = batch
        if fits is not None and len(x) > fits:
            raise torch.OutOfMemoryError
        with update.forward():
            loss = loss_fn(model(x), y)
        update.backward(loss)
        return loss.detach()

    trainer = Engine(process)
    update = Update(trainer, model, torch.optim.AdamW(model.parameters()))
    trainer.attach(DataParallel(), *handlers)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: sizes.append(len(trainer.state.batch[0])))
    torch.manual_seed(10 + dist.rank())
    trainer.run(data(), max_epochs=2)
    return [tensor.tolist() for tensor in model.state_dict().values()], sizes


def least_size(mode):
    finder = BatchSizeFinder(mode=mode)
    _, sizes = train(finder, fits=(40, 11)[dist.rank()])
    return finder.size, sizes[0]


def no_trace():
    finder = LearningRateFinder(1e-4, 10.0, steps=30, apply=False)
    return train(finder) == train(), finder.result.suggestion, finder.result.losses


def same_rate():
    finder = LearningRateFinder(1e-4, 10.0, steps=30)
    weights, _ = train(finder)
    return weights, finder.result.suggestion


def run_all():
    return {"power": least_size("power"), "binary": least_size("binary"), "no trace": no_trace(), "rate": same_rate()}
