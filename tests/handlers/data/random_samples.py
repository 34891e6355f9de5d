"""Datasets, collate functions and samplers that draw from the global generators, and runs on them."""

import random

import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from leyden.engine import Engine, Events, supervised_trainer

TOTAL = 14


def noise():
    """A value from each of the generators that samples may draw from."""
    return torch.tensor([random.random(), numpy.random.rand(), torch.rand(()).item()], dtype=torch.float64)


class Augmented(Dataset):
    """(index, noise) pairs."""

    def __init__(self, total=TOTAL):
        self.total = total
        self.name = "augmented"

    def __len__(self):
        return self.total

    def __getitem__(self, index):
        return index, noise()


class WorkerSeeds(Augmented):
    """The seed that torch gave the worker."""

    def __getitem__(self, index):
        return get_worker_info().seed % 2**32


class AugmentedAtOnce(Augmented):
    def __getitems__(self, indices):
        return [(index, noise()) for index in indices]


class Pairs(Augmented):
    """(input, target) pairs to train on."""

    def __getitem__(self, index):
        x = torch.linspace(-1, 1, 6) * (1 + index / TOTAL)
        return (x + noise().float().repeat(2)).float(), torch.tensor([index / TOTAL, 1.0])


class Stream(IterableDataset):
    def __init__(self, total=TOTAL):
        self.total = total

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return ((index, noise()) for index in range(first, self.total, step))


class Drawing(Sampler):
    """A sampler of one's own, without length, that draws for each index anew."""

    def __iter__(self):
        for _ in range(TOTAL):
            yield random.randrange(TOTAL)


def masked(samples):
    """A collate function that draws."""
    return torch.tensor([index for index, _ in samples]), torch.stack([values for _, values in samples]), noise()


def mark_dataset(worker_id):
    """A worker_init_fn as torch's documentation has them: it sets an attribute of the dataset."""
    get_worker_info().dataset.total = 3


def batches_seen(trainer):
    """The batches of the run, noted as it goes."""
    seen = []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda engine: seen.append(engine.state.batch))
    return seen


def engine_on(*handlers):
    """An engine that only looks at its batches, and those."""
    engine = Engine(lambda engine, batch: None)
    engine.attach(*handlers)
    return engine, batches_seen(engine)


def seen_in(data, *handlers, epochs=2, **limits):
    """What an engine gets to see in a run with the handlers; the process has drawn something before."""
    torch.manual_seed(torch.seed() % 2**30)
    random.seed()
    numpy.random.seed()
    engine, seen = engine_on(*handlers)
    engine.run(data, **(limits or {"max_epochs": epochs}))
    end_workers(engine)
    return seen


def same(a, b):
    """Two batches, or lists of them, are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def end_workers(engine):
    """Ends workers that stay: torch waits 5 seconds for each of them if a collection of garbage does it."""
    iterator = getattr(engine.state.dataloader, "_iterator", None)
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


def dropout_net():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, 2))


def train(data, *handlers, epochs=3):
    """A trained model with dropout, after whatever was drawn before."""
    model = dropout_net()
    torch.manual_seed(torch.seed() % 2**30)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.01), nn.MSELoss())
    trainer.attach(*handlers)
    trainer.run(data, max_epochs=epochs)
    end_workers(trainer)
    return model


def equal(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def loader_of(workers, dataset=None, **arguments):
    """A shuffling loader; from two workers on they stay from epoch to epoch."""
    arguments = {"batch_size": 4, "shuffle": True} | arguments
    return DataLoader(
        Pairs() if dataset is None else dataset, num_workers=workers, persistent_workers=workers > 1, **arguments
    )


def seen_on_ranks(workers):
    """Run by each rank: its indices and what was drawn with them."""
    from leyden.handlers import DataParallel
    from leyden.handlers.data import Reproducible

    torch.manual_seed(torch.seed() % 2**30)
    engine, seen = engine_on()
    model = nn.Linear(1, 1)
    from leyden.engine import Update

    Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    engine.attach(DataParallel(), Reproducible(3))
    stream = []
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: stream.append(torch.rand(()).item()))
    engine.run(loader_of(workers, Augmented(), batch_size=2), max_epochs=2)
    return [(index.tolist(), values.tolist()) for index, values in seen], stream
