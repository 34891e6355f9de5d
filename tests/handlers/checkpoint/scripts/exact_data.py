"""Loaders whose order and whose samples are drawn in every way that a user's may be."""

import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

SAMPLES, BATCH = 38, 4
BATCHES = 10
"""In a pass of one rank alone, however the loader makes them."""

AUGMENTATIONS = {
    "dropout": lambda: 0.0,  # the model draws, the data does not
    "python": lambda: random.gauss(0, 0.1),
    "numpy": lambda: float(np.random.normal(0, 0.1)),
    "torch": lambda: float(torch.randn(()) * 0.1),
}


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(SAMPLES, 6, generator=generator), torch.randint(0, 3, (SAMPLES,), generator=generator)
    return x, y


class Samples(Dataset):
    """Augmented as it is read, by a global generator."""

    def __init__(self, randomness, seed=1):
        self.x, self.y = tensors(seed)
        self.randomness = randomness

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return self.x[index] + AUGMENTATIONS[self.randomness](), self.y[index]


class Buckets(Sampler):
    """Batches of 2 to 5 samples, whose order is drawn at the beginning of a pass and while it lasts."""

    def __iter__(self):
        order = torch.randperm(SAMPLES).tolist()
        for left in range(BATCHES, 0, -1):
            most, least = len(order) - 2 * (left - 1), len(order) - 5 * (left - 1)
            size = random.randint(max(2, least), min(5, most))
            yield [order.pop() for _ in range(size)]

    def __len__(self):
        return BATCHES


class Stream(IterableDataset):
    """Samples without random access; it can say where it is, and go on from there. Workers share them out.

    In a worker process it is the dataset that has to remember the generators from which it draws.
    """

    def __init__(self, randomness, seed=1):
        self.x, self.y = tensors(seed)
        self.randomness = randomness
        self.order = []
        self.place = 0
        self.loaded = None

    def __iter__(self):
        worker = get_worker_info()
        if self.loaded is None:
            start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
            self.order = (start + step * torch.randperm(len(range(start, SAMPLES, step)))).tolist()
            self.place = 0
        elif worker is not None:
            set_generators(self.loaded)
        self.loaded = None
        return self.read()

    def read(self):
        while self.place < len(self.order):
            index = self.order[self.place]
            self.place += 1
            yield self.x[index] + AUGMENTATIONS[self.randomness](), self.y[index]

    def state_dict(self):
        return {"order": self.order, "place": self.place, "generators": get_generators()}

    def load_state_dict(self, state):
        """At its end it has nothing left: only the pass after that begins anew."""
        self.order, self.place, self.loaded = state["order"], state["place"], state["generators"]


def get_generators():
    return random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()


def set_generators(states):
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def make_loader(kind, randomness, workers, seed=1):
    """A loader of the kind, anew. `seed`: of what the samples are."""
    if kind == "iterable with state":
        return StatefulDataLoader(Stream(randomness, seed), batch_size=BATCH, num_workers=workers)
    dataset = Samples(randomness, seed)
    if kind == "custom batch sampler":
        return DataLoader(dataset, batch_sampler=Buckets(), num_workers=workers)
    if kind == "weighted sampler":
        weights = torch.arange(1.0, SAMPLES + 1)
        sampler = WeightedRandomSampler(weights, SAMPLES)
        return DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers)
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)
