"""A schedule on a metric that each rank sets for itself; each rank of a launch runs this."""

import torch
from by_hand import loss_fn, net, sgd
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers import DataParallel, Schedule


def rate_and_weights():
    """After epochs in which rank 0's value gets better, and rank 1's worse or does not come."""
    torch.manual_seed(0)
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.declare_metrics("own")

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure():
        epoch = trainer.state.epoch
        if dist.rank() == 0:
            trainer.state.metrics["own"] = 1 / epoch
        elif epoch != 2:
            trainer.state.metrics["own"] = float(epoch)

    plateau = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    trainer.attach(DataParallel(), Schedule(plateau, metric="own"))
    trainer.run(DataLoader(TensorDataset(torch.randn(16, 6), torch.randn(16, 2)), batch_size=4), max_epochs=4)
    return optimizer.param_groups[0]["lr"], [each.tolist() for each in model.parameters()]
