"""Data of every kind, and runs on it that are stopped and gone on with by engines made anew."""

import copy
import random

import numpy
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from leyden.engine import Engine, Events
from leyden.engine.randomness import host_state, set_host_state

SAMPLES, BATCH, BATCHES = 23, 3, 8


class Indices(Dataset):
    """Each sample is its index; counts what is read."""

    def __init__(self, total=SAMPLES):
        self.total = total
        self.read = []

    def __len__(self):
        return self.total

    def __getitem__(self, index):
        self.read.append(index)
        return index


class Buckets(Sampler):
    """Batches of 2 to 4 samples. It draws all along a pass, from two of the generators that steps draw from too."""

    def __iter__(self):
        order = torch.randperm(SAMPLES).tolist()
        for left in range(BATCHES, 0, -1):
            least, most = len(order) - 4 * (left - 1), len(order) - 2 * (left - 1)
            size = random.randint(max(2, least), min(4, most))
            at = int(numpy.random.randint(len(order)))
            order = order[at:] + order[:at]
            yield [order.pop() for _ in range(size)]

    def __len__(self):
        return BATCHES


class OwnRandom(Sampler):
    """Draws all along from generators of its own."""

    def __init__(self):
        self.random = random.Random(1)
        self.numpy = numpy.random.default_rng(2)
        self.legacy = numpy.random.RandomState(3)

    def __iter__(self):
        for _ in range(SAMPLES):
            yield (self.random.randrange(100) + int(self.numpy.integers(100)) + self.legacy.randint(100)) % SAMPLES

    def __len__(self):
        return SAMPLES


class Stream(IterableDataset):
    """Samples in order, shared out to workers."""

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        yield from range(first, SAMPLES, step)


class StreamWithState(IterableDataset):
    """Samples in an order that is drawn when a pass begins; it can say where it is, and go on from there.

    In a worker process, that has its generators for itself, it is the dataset that has to remember their state.
    """

    def __init__(self):
        self.order = None
        self.place = 0
        self.generator = None

    def __iter__(self):
        worker = get_worker_info()
        if worker is not None and self.generator is not None:
            torch.set_rng_state(self.generator)
            self.generator = None
        if self.order is None:
            self.order = torch.randperm(SAMPLES).tolist()[:: 1 if worker is None else worker.num_workers]
            self.place = 0
        while self.place < len(self.order):
            self.place += 1
            yield self.order[self.place - 1]
        self.order = None

    def state_dict(self):
        return {"order": self.order, "place": self.place, "generator": torch.get_rng_state()}

    def load_state_dict(self, state):
        self.order, self.place, self.generator = state["order"], state["place"], state["generator"]


class LoaderWithState:
    """Not of torch: batches in an order of its own, that know where they are."""

    def __init__(self):
        self.epoch = self.place = 0

    def __len__(self):
        return BATCHES

    def __iter__(self):
        order = torch.randperm(BATCHES, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        while self.place < BATCHES:
            self.place += 1
            yield [order[self.place - 1]]
        self.epoch, self.place = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state):
        self.epoch, self.place = state["epoch"], state["place"]


def weighted(generator=None):
    return WeightedRandomSampler(torch.arange(1.0, SAMPLES + 1), SAMPLES, generator=generator)


def generator():
    return torch.Generator().manual_seed(3)


LOADERS = {
    "shuffle": lambda **w: DataLoader(Indices(), BATCH, shuffle=True, **w),
    "shuffle by a generator": lambda **w: DataLoader(Indices(), BATCH, shuffle=True, generator=generator(), **w),
    "shuffle without batches": lambda **w: DataLoader(Indices(8), None, shuffle=True, **w),
    "weighted": lambda **w: DataLoader(Indices(), BATCH, sampler=weighted(), **w),
    "weighted by a generator": lambda **w: DataLoader(Indices(), BATCH, sampler=weighted(generator()), **w),
    "a sampler with generators of its own": lambda **w: DataLoader(Indices(), BATCH, sampler=OwnRandom(), **w),
    "a batch sampler that draws all along": lambda **w: DataLoader(Indices(), batch_sampler=Buckets(), **w),
    "a loader with state": lambda **w: StatefulDataLoader(Indices(), BATCH, shuffle=True, **w),
    "a loader with state, by a generator": lambda **w: StatefulDataLoader(
        Indices(), BATCH, shuffle=True, generator=generator(), **w
    ),
    "a loader with state, weighted": lambda **w: StatefulDataLoader(Indices(), BATCH, sampler=weighted(), **w),
    "a stream with state": lambda **w: StatefulDataLoader(StreamWithState(), BATCH, **w),
    "a stream": lambda **w: DataLoader(Stream(), BATCH, **w),
}
OTHERS = {
    "a loader of one's own with state": LoaderWithState,
    "a list": lambda: [[i] for i in range(BATCHES)],
}


class Stopped(Exception):
    """Stands for the end of a process."""


def plain(batch):
    return batch.tolist() if isinstance(batch, torch.Tensor) else [plain(each) for each in batch] if isinstance(
        batch, list
    ) else batch  # fmt: skip


def run(make, *, stop=None, state=None, epochs=3, epoch_length=None, setup=None):
    """What each step of a run got: epoch, iteration, batch, and numbers that it drew as dropout does.

    `make` makes the data. `stop`: (event, how many of it) at which the run saves and is gone; then that state comes
    along. `state`: such a one, to go on from; the process has drawn other numbers before.
    """
    seed = 5 if state is None else random.SystemRandom().randrange(2**31)
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed)
    data = make()
    seen, saved = [], []

    def process(engine, batch):
        drawn = random.random(), float(numpy.random.rand()), torch.rand(()).item()
        seen.append((engine.state.epoch, engine.state.iteration, plain(batch), drawn))

    engine = Engine(process)
    if setup is not None:
        setup(engine)

    def save():
        saved.append((copy.deepcopy(engine.state_dict()), copy.deepcopy(host_state())))
        raise Stopped

    if stop is not None:
        engine.add_event_handler(stop[0](once=stop[1]), save)
    if state is not None:
        engine.load_state_dict(state[0])
        set_host_state(state[1])
    try:
        engine.run(data, max_epochs=epochs, epoch_length=epoch_length)
    except Stopped:
        return seen, saved[0]
    finally:
        end_workers(data)
    return seen


def end_workers(data):
    """torch waits 5 seconds for each worker, if it is a collection of garbage that ends them."""
    iterator = getattr(data, "_iterator", None)
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


def differs(make, stop, **arguments):
    """What is wrong with a run that was stopped there and gone on with; None if it is the run that never stopped."""
    whole = run(make, **arguments)
    before, state = run(make, stop=stop, **arguments)
    after = run(make, state=state, **arguments)
    if before + after == whole and len(before) < len(whole):
        return None
    pairs = zip(before + after, whole, strict=False)
    return next(((got, wanted) for got, wanted in pairs if got != wanted), f"{len(before + after)} of {len(whole)}")


def stops(epoch_length, batches=BATCHES):
    """Moments to stop at: in mid-epoch, at the ends of epochs and passes, in a second pass of an epoch."""
    length = epoch_length or batches
    iterations = {1, length - 1, length, length + 2, 2 * length, batches, batches + 1, batches + 3} - {0}
    at = [(Events.ITERATION_COMPLETED, each) for each in sorted(iterations) if each < 3 * length]
    return [*at, (Events.EPOCH_COMPLETED, 1), (Events.EPOCH_COMPLETED, 2), (Events.EPOCH_STARTED, 2)]
