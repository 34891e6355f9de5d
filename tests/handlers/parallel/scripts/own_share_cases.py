"""Data of which each rank has its own share before DataParallel comes: each function is run by every rank."""

import contextlib
import copy
import warnings

import torch
from data_cases import evaluated, evaluator_of, note_batches, trainer_of
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler, SequentialSampler

from leyden import distributed as dist
from leyden.engine import Events
from leyden.handlers import DataParallel, Evaluate, Reproducible
from leyden.handlers.data import CombinedLoader

TOTAL = 8


class ShareOfStream(IterableDataset):
    """Gives its rank's share, as Hugging Face's split_dataset_by_node and WebDataset's split_by_node do."""

    def __init__(self, total=TOTAL):
        self.total = total

    def __iter__(self):
        return iter(range(dist.rank(), self.total, dist.world_size()))


class SizedShare(ShareOfStream):
    def __len__(self):
        return len(range(dist.rank(), self.total, dist.world_size()))


class OrderedShare(Sampler):
    """As timm's OrderedDistributedSampler: no DistributedSampler, but it has a rank and its epochs."""

    def __init__(self, names=("rank", "num_replicas"), rank=None):
        setattr(self, names[0], dist.rank() if rank is None else rank)
        setattr(self, names[1], dist.world_size())
        self.epochs = []

    def __iter__(self):
        return iter(range(dist.rank(), TOTAL, dist.world_size()))

    def __len__(self):
        return TOTAL // dist.world_size()

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


class BatchesOfRank(OrderedShare):
    """A batch sampler that has a rank."""

    def __iter__(self):
        return ([index] for index in super().__iter__())


def own_list():
    return [torch.tensor([i]) for i in range(dist.rank(), TOTAL, dist.world_size())]


KINDS = {
    "an iterable dataset": lambda: DataLoader(ShareOfStream(), batch_size=1),
    "an iterable dataset with a length": lambda: DataLoader(SizedShare(), batch_size=1),
    "a sampler": lambda: DataLoader(range(TOTAL), batch_size=1, sampler=OrderedShare()),
    "a sampler of other names": lambda: DataLoader(range(TOTAL), sampler=OrderedShare(("_rank", "_world_size"))),
    "a sampler without batches": lambda: DataLoader(range(TOTAL), batch_size=None, sampler=OrderedShare()),
    "a batch sampler": lambda: DataLoader(range(TOTAL), batch_sampler=BatchesOfRank()),
    "a sampler below a batch sampler": lambda: DataLoader(
        range(TOTAL), batch_sampler=BatchSampler(OrderedShare(), 1, False)
    ),
    "a DistributedSampler": lambda: DataLoader(range(TOTAL), sampler=DistributedSampler(range(TOTAL), shuffle=False)),
    "a list": own_list,
    "a generator": lambda: iter(own_list()),
    "the samplers of torch": lambda: DataLoader(range(TOTAL), sampler=SequentialSampler(range(TOTAL))),
    "a DistributedSampler of one rank": lambda: DataLoader(
        range(TOTAL), sampler=DistributedSampler(range(TOTAL), num_replicas=1, rank=0, shuffle=False)
    ),
}


def said(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = function()
    return value, [str(each.message) for each in caught if "DataParallel" in str(each.message)]


def trained_on(data, *handlers, epochs=1, **arguments):
    trainer = trainer_of()
    trainer.attach(DataParallel(**arguments), *handlers)
    batches = note_batches(trainer)
    trainer.run(data, max_epochs=epochs)
    return batches


def flat(batches):
    return [sample for batch in batches for sample in (batch if isinstance(batch, list) else [batch])]


def own_share_trained(kind):
    return said(lambda: flat(trained_on(KINDS[kind]())[1]))


def own_share_evaluated(kind):
    batches, words = said(lambda: flat(evaluated(KINDS[kind](), deal=None)[0]))
    return batches, [each for each in words if "evaluates" in each]  # not of the list that is trained on


def chosen():
    """What is said to be own, is silent; what is said to be the same on all ranks, is dealt."""
    return {
        "samples": said(lambda: flat(trained_on(own_list(), deal="samples")[1])),
        "nothing": said(lambda: flat(trained_on(KINDS["the samplers of torch"](), deal="nothing")[1])),
        "batches": said(lambda: flat(trained_on([[i] for i in range(TOTAL)], deal="batches")[1])),
        "batches of a sampler that has a rank": said(lambda: flat(trained_on(KINDS["a sampler"](), deal="batches")[1])),
    }


def an_evaluator_of_another_choice():
    trainer, evaluator = trainer_of(), evaluator_of()
    evaluator.attach(DataParallel(deal="batches"))
    batches = note_batches(evaluator)
    trainer.attach(Evaluate(evaluator, [[i] for i in range(TOTAL)]), DataParallel(deal="samples"))
    trainer.run([[0]])
    return flat(batches[1])


def told_once():
    return said(lambda: trained_on(DataLoader(ShareOfStream(), batch_size=1), epochs=3) and None)[1]


def epochs_of_a_sampler_that_has_a_rank():
    loader = KINDS["a sampler"]()
    trained_on(loader, epochs=3)
    return loader.sampler.epochs[-3:]


def error_of(function):
    try:
        function()
    except ValueError as error:
        return str(error)
    return None


def mistaken():
    return {
        "another rank's": error_of(lambda: trained_on(DataLoader(range(TOTAL), sampler=OrderedShare(rank=5)))),
        "unlike loaders": error_of(lambda: trained_on(DataLoader(range(8 + dist.rank())))),
        "unlike evaluations": error_of(lambda: evaluated(DataLoader(range(8 + dist.rank())), deal=None)),
        "no choice": error_of(lambda: DataParallel(deal=True)),
    }


def uneven(kind, epochs=2, *handlers):
    """Rank 0 has 5 batches, rank 1 has 4."""
    make = {
        "a stream": lambda: DataLoader(ShareOfStream(9), batch_size=1),
        "a stream with a length": lambda: DataLoader(SizedShare(9), batch_size=1),
        "a list": lambda: [torch.tensor([i]) for i in range(dist.rank(), 9, 2)],
        "a generator": lambda: (torch.tensor([i]) for i in range(dist.rank(), 9, 2)),
        "a stream and nothing": lambda: DataLoader(ShareOfStream(1), batch_size=1),
        "combined": lambda: CombinedLoader({"a": DataLoader(ShareOfStream(9), batch_size=1)}, mode="min_size"),
        "reproducible": lambda: DataLoader(ShareOfStream(9), batch_size=1),
    }[kind]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = trainer_of(lambda engine, batch: dist.all_reduce(1))  # which hangs unless all take part
        trainer.attach(DataParallel(deal="samples"), *([Reproducible(0)] if kind == "reproducible" else []))
        counts = []
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: counts.append(engine.state.iteration))
        error = error_of(lambda: trainer.run(make(), max_epochs=1 if kind == "a generator" else epochs))
    return counts, error, [str(each.message) for each in caught if "ended before" in str(each.message)]


def gone_on(kind):
    """Samples of a run that is stopped in mid-epoch and gone on with by a trainer made anew, and of one in one go."""

    def make():
        trainer = trainer_of()
        trainer.attach(DataParallel(deal="samples"))
        return trainer, note_batches(trainer)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        straight, all_batches = make()
        straight.run(KINDS[kind](), max_epochs=2)
        first, before = make()
        kept = {}

        def stop():
            kept.update(copy.deepcopy(first.state_dict()))
            raise ArithmeticError

        first.add_event_handler(Events.ITERATION_COMPLETED(once=2), stop)
        with contextlib.suppress(ArithmeticError):
            first.run(KINDS[kind](), max_epochs=2)
        second, after = make()
        second.load_state_dict(kept)
        second.run(KINDS[kind](), max_epochs=2)
    joined = {epoch: flat(before.get(epoch, []) + after.get(epoch, [])) for epoch in (1, 2)}
    return joined, {epoch: flat(batches) for epoch, batches in all_batches.items()}
