"""A run on some ranks that is stopped, and gone on with on others: which samples they see. Run by every rank."""

import random
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update
from leyden.handlers import DataParallel
from leyden.handlers.checkpoint import Checkpoint
from leyden.handlers.data import CombinedLoader, LimitBatches, Reproducible

TOTAL = 48


class Indices(Dataset):
    def __len__(self):
        return TOTAL

    def __getitem__(self, index):
        return index


class Stream(IterableDataset):
    """It can say where it is."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        while self.place < TOTAL:
            self.place += 1
            yield self.place - 1
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Pairs(Sampler):
    """Batches in an order that is drawn all along a pass."""

    def __iter__(self):
        left = list(range(TOTAL // 2))
        while left:
            pair = left.pop(random.randrange(len(left)))
            yield [2 * pair, 2 * pair + 1]

    def __len__(self):
        return TOTAL // 2


def own_sampler():
    return DistributedSampler(Indices(), dist.world_size(), dist.rank(), seed=3)


DATA = {
    "shuffle": lambda: DataLoader(Indices(), 2, shuffle=True),
    "shuffle by workers": lambda: DataLoader(Indices(), 2, shuffle=True, num_workers=1),
    "shuffle by a generator": lambda: DataLoader(Indices(), 2, shuffle=True, generator=torch.Generator()),
    "in order": lambda: DataLoader(Indices(), 2),
    "a batch sampler": lambda: DataLoader(Indices(), batch_sampler=Pairs()),
    "a loader with state": lambda: StatefulDataLoader(Indices(), 2, shuffle=True),
    "a stream with state": lambda: StatefulDataLoader(Stream(), 2),
    "a list": lambda: [[2 * i, 2 * i + 1] for i in range(TOTAL // 2)],
    "reproducible": lambda: DataLoader(Indices(), 2, shuffle=True),
    "a sampler of one's own for ranks": lambda: DataLoader(Indices(), 2, sampler=own_sampler()),
    "a half": lambda: DataLoader(Indices(), 2, shuffle=True),
    "two loaders": lambda: CombinedLoader({"a": DATA["shuffle"](), "b": DATA["shuffle"]()}),
    "long epochs": lambda: DataLoader(Indices(), 2, shuffle=True),
}


class Stopped(Exception):
    """Stands for the end of a process."""


def samples_of(batch):
    if isinstance(batch, dict):
        return [sample for key, part in batch.items() for sample in [(key, each) for each in samples_of(part)]]
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def train(directory, kind, stop, epochs=2):
    """{epoch: the samples of each iteration}, and the lengths of the epochs that ended, of a run that goes on from the
    directory, up to an iteration or to its end.
    """
    seen, lengths = {}, {}

    def process(engine, batch):
        random.random(), torch.rand(3)
        seen.setdefault(engine.state.epoch, []).append(samples_of(batch))

    torch.manual_seed(7)
    trainer, model = Engine(process), nn.Linear(1, 1)
    Update(trainer, model, torch.optim.SGD(model.parameters(), lr=0.1))
    checkpoint = Checkpoint(directory, resume="auto", every=1000)
    trainer.attach(DataParallel(deal="batches"), checkpoint)
    if kind == "reproducible":
        trainer.attach(Reproducible(3))
    if kind == "a half":
        trainer.attach(LimitBatches(0.5))

    def note_length():
        state = trainer.state
        lengths[state.epoch] = (state.epoch_length, state.iteration - trainer.cursor.epoch_start)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, note_length)

    def save():
        checkpoint.save(trainer)
        raise Stopped

    if stop is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), save)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")
        warnings.filterwarnings("error", "to go on where the run was")
        try:
            trainer.run(DATA[kind](), max_epochs=epochs, epoch_length=20 if kind == "long epochs" else None)
        except Stopped:
            checkpoint.wait() if hasattr(checkpoint, "wait") else None
    return seen, lengths


def trained(directory, kinds, stop):
    """{kind: what the run on it tells}."""
    return {kind: train(f"{directory}/{kind}", kind, stop) for kind in kinds}
