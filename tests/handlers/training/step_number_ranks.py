"""What a run's number of steps is on each rank; each rank of a launch runs these."""

import torch
from by_hand import loss_fn, net, sgd
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from leyden.engine import supervised_trainer
from leyden.handlers import DataParallel, GradientAccumulation, Schedule


def told_and_done(window=2, samples=40, epochs=3):
    """The steps told before the run, given to the function, and done; the last learning rate."""
    torch.manual_seed(0)  # the ranks have the same data
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    loader = DataLoader(TensorDataset(torch.randn(samples, 6), torch.randn(samples, 2)), batch_size=4)
    given = []

    def make(optimizer, steps):
        given.append(steps)
        return CosineAnnealingLR(optimizer, steps)

    trainer.attach(DataParallel(), GradientAccumulation(window), Schedule(make))
    told = trainer.total_steps(loader, max_epochs=epochs)
    done = trainer.run(loader, max_epochs=epochs).step
    return told, given, done, optimizer.param_groups[0]["lr"]
