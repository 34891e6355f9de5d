"""One training, on ranks that all see different data and on ranks of which pairs see the same."""

import random
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    SWA,
    BatchSizeFinder,
    Checkpoint,
    DataParallel,
    DealData,
    Evaluate,
    GradientAccumulation,
    LearningRateFinder,
    Reproducible,
    predict,
)
from leyden.metrics import Loss, Metric

SAMPLES = 15


class Numbered(Dataset):
    """Samples that tell their number, with noise that is drawn when they are read."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        x = torch.tensor([index / SAMPLES, 1.0, random.random()])
        return x, torch.tensor([float(index)])


def network(norm=nn.BatchNorm1d):
    torch.manual_seed(dist.rank())  # each rank begins with other weights
    return nn.Sequential(nn.Linear(3, 8), norm(8), nn.Dropout(0.5), nn.Linear(8, 1))


class Seen(Metric):
    """All targets, joined over the ranks."""

    def __init__(self):
        super().__init__()
        self.add_state("targets", torch.zeros(0), reduction="cat")

    def update(self, output):
        self.targets.append(output[1].flatten())

    def compute(self):
        return torch.cat(list(self.targets)).sort().values.tolist()


def loaders(mesh):
    dist.initialize(mesh=mesh)
    return DataLoader(Numbered(), batch_size=3, shuffle=True), DataLoader(Numbered(), batch_size=4)


def predicted(x, y, y_pred, loss):
    return y_pred.detach(), y


def weighed_step(model, update_of):
    def step(engine, batch):
        x, y = batch
        update = update_of()
        with update.forward():
            y_pred = model(x)
            loss = (y_pred - y).square().mean()
        update.backward(loss, weight=float(y.sum()) + 1)
        return y_pred.detach(), y

    return step


def trained(mesh, weighed=False):
    """Everything that a run tells and leaves."""
    loader, held_back = loaders(mesh)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    seen = {"samples": [], "noise": [], "dropped": [], "epochs": [], "metrics": []}
    if weighed:
        updates = []
        trainer = Engine(weighed_step(model, lambda: updates[0]))
        updates.append(Update(trainer, model, optimizer))
    else:
        trainer = supervised_trainer(model, optimizer, nn.MSELoss(), output_transform=predicted)
    evaluator = supervised_evaluator(model, metrics={"loss": Loss(nn.MSELoss()), "seen": Seen()})
    Loss(nn.MSELoss()).attach(trainer, "loss")
    Seen().attach(trainer, "seen")
    trainer.attach(
        DataParallel(), Reproducible(3), GradientAccumulation(2), Evaluate(evaluator, held_back, prefix="val/")
    )  # fmt: skip

    @trainer.on(Events.ITERATION_STARTED)
    def note():
        x, y = trainer.state.batch
        seen["samples"].append([int(each) for each in y])
        seen["noise"].append(x[:, 2].tolist())

    @trainer.on(Events.EPOCH_COMPLETED, order=20)
    def end():
        seen["epochs"].append(trainer.state.iteration)
        seen["metrics"].append(dict(trainer.state.metrics))
        seen["dropped"].append(torch.rand(2).tolist())  # where the stream of dropout stands

    trainer.run(loader, max_epochs=2)
    seen["weights"] = [tensor.tolist() for tensor in model.state_dict().values()]
    seen["steps"] = trainer.state.step
    return seen


class OwnStream(IterableDataset):
    """A stream that finds its share by itself: 8 samples for the first rank of the data, 6 for the other."""

    def __iter__(self):
        yield from (torch.tensor([float(i)]) for i in range(dist.data_rank(), 14 - dist.data_rank(), 2))


def other_passes(mesh):
    """What goes over the ranks' data beside the training itself."""
    loader, held_back = loaders(mesh)
    told = {}
    model = network()
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.01), nn.MSELoss())
    trainer.attach(DataParallel(), Reproducible(3), SWA(start=1))
    trainer.run(loader, max_epochs=2)
    told["batch norm made anew"] = model[1].running_mean.tolist()

    evaluator = supervised_evaluator(model, output_transform=lambda x, y, y_pred: y)
    told["predicted"] = [batch.flatten().tolist() for batch in predict(evaluator, held_back)]

    line = nn.Linear(3, 1)
    trainer = supervised_trainer(line, torch.optim.SGD(line.parameters(), lr=0.01), nn.MSELoss())
    trainer.attach(DataParallel(), Reproducible(3))
    told["batch size"] = BatchSizeFinder(max_size=64).find(trainer, loader)
    rates = LearningRateFinder(1e-4, 1e-2, steps=4)
    told["losses"] = rates.find(trainer, loader).losses

    told["dealt by torch's sampler"] = {}
    for name, place in (("data", (dist.data_size(), dist.data_rank())), ("world", (dist.world_size(), dist.rank()))):
        engine = Engine(lambda engine, batch: None)
        engine.attach(DealData())
        sampler = DistributedSampler(Numbered(), *place, shuffle=False)
        try:
            engine.run(DataLoader(Numbered(), sampler=sampler), max_epochs=1)
            told["dealt by torch's sampler"][name] = engine.state.iteration
        except ValueError as error:
            told["dealt by torch's sampler"][name] = str(error)

    engine, seen = Engine(lambda engine, batch: batch.item()), []
    engine.attach(DealData())
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(engine.state.output))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine.run(DataLoader(OwnStream(), batch_size=1), max_epochs=1)
    told["own stream"] = seen
    told["words"] = [str(each.message) for each in caught if "ended before" in str(each.message)]
    told["mesh words"] = [str(each.message) for each in caught if "dist.data_rank()" in str(each.message)]

    told["auto"] = [int(each) for _, y in dist.auto_dataloader(Numbered(), batch_size=4, shuffle=False) for each in y]
    return told


def gone_on(folder, stop=None):
    """A training from a checkpoint, if there is one; to its end, or to where it is stopped, which is kept."""
    model = network(nn.LayerNorm)  # a batch may be one sample
    trainer = supervised_trainer(
        model, torch.optim.SGD(model.parameters(), lr=0.01), nn.MSELoss(), output_transform=predicted
    )
    Seen().attach(trainer, "seen")
    trainer.attach(DataParallel(), Reproducible(3), GradientAccumulation(2), Checkpoint(folder, resume="auto"))
    batches = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note():
        batches.append([int(each) for each in trainer.state.batch[1]])
        if trainer.state.iteration == stop:
            trainer.interrupt()

    @trainer.on(Events.EPOCH_COMPLETED, order=20)
    def end():
        batches.append(trainer.state.metrics["seen"])

    trainer.run(DataLoader(Numbered(), batch_size=2, shuffle=True), max_epochs=2)
    return {
        "batches": batches,
        "weights": [tensor.tolist() for tensor in model.state_dict().values()],
        "drawn": torch.rand(1).item(),
    }


def gone_on_from(mesh, folders):
    dist.initialize(mesh=mesh)
    return [gone_on(folder) for folder in folders]


class AsksForTensors:
    """A handler that asks for a dimension when it is attached."""

    def attach(self, engine):
        dist.request_mesh(self, {"tensor": dist.world_size()})


def tensor_alone():
    """All ranks see the same data: nothing is dealt, and nothing has to be exchanged."""
    loader, _ = loaders(None)
    model = network()
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.01), nn.MSELoss())
    trainer.attach(DataParallel(), Reproducible(3), AsksForTensors())
    trainer.run(loader, max_epochs=1)
    return trainer.state.iteration, [tensor.tolist() for tensor in model.state_dict().values()]


def everything(mesh, folder):
    """`stopped` in the midst of an epoch and of an accumulation window; `whole` from beginning to end."""
    return {
        "trained": trained(mesh),
        "weighed": trained(mesh, weighed=True),
        "passes": other_passes(mesh),
        "stopped": gone_on(folder / "stopped", stop=3),
        "whole": gone_on(folder / "whole"),
    }
