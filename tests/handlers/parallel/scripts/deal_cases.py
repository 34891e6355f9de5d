"""Who gets what of data that each rank may have a share of: each function is run by both ranks."""

import warnings

import torch
from data_cases import evaluator_of, note_batches, trainer_of
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from leyden import distributed as dist
from leyden.engine import Engine, Events
from leyden.handlers import DataParallel, DealData, Evaluate, predict

TOTAL = 32


class Split:
    """What Hugging Face's split_dataset_by_node leaves on a stream."""

    def __init__(self, rank, world_size):
        self.rank, self.world_size = rank, world_size


class SplitStream(IterableDataset):
    """A stream of Hugging Face, as far as it tells of its share."""

    def __init__(self, rank=None, ranks=None):
        self._distributed = Split(dist.rank() if rank is None else rank, ranks or dist.world_size())

    def __iter__(self):
        return iter(range(self._distributed.rank, TOTAL, self._distributed.world_size))


def split_by_node(source):
    yield from list(source)[dist.rank() :: dist.world_size()]


class Pipeline(IterableDataset):
    """A stream of WebDataset, as far as it tells of its share."""

    def __init__(self):
        self.pipeline = [range(TOTAL), split_by_node]

    def __iter__(self):
        return self.pipeline[1](self.pipeline[0])


class Fingerprinted:
    """A data set of Hugging Face with random access, of which each rank has a share."""

    def __init__(self, samples, fingerprint):
        self.samples, self._fingerprint = samples, fingerprint

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class OwnRank(IterableDataset):
    """Asks for its rank and its worker as it is read."""

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(dist.rank() * workers + worker, TOTAL, dist.world_size() * workers))


def mine():
    return range(dist.rank(), TOTAL, dist.world_size())


SHARES = {
    "a Subset": lambda: Subset(range(TOTAL), mine()),
    "a list of a Subset": lambda: Subset(range(TOTAL), list(mine())),
    "a TensorDataset": lambda: TensorDataset(torch.arange(TOTAL)[dist.rank() :: 2]),
    "a fingerprint": lambda: Fingerprinted(list(mine()), f"of rank {dist.rank()}"),
    "a Subset of a fingerprint": lambda: Subset(Fingerprinted(list(mine()), f"of rank {dist.rank()}"), range(16)),
}
SAME = {
    "a Subset": lambda: Subset(range(100), range(TOTAL)),
    "a TensorDataset": lambda: TensorDataset(torch.arange(TOTAL)),
    "a fingerprint": lambda: Fingerprinted(range(TOTAL), "of both"),
    "a range": lambda: range(TOTAL),
}
STREAMS = {"split": SplitStream, "a pipeline": Pipeline, "its own rank": OwnRank}


def seen_of(data, *handlers):
    """What this rank trains on, or the error that tells why not; and what is said."""
    trainer = trainer_of()
    trainer.attach(*handlers)
    seen = note_batches(trainer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer.run(data, max_epochs=1)
        except ValueError as error:
            return str(error), []
    words = [str(each.message) for each in caught if "deal" in str(each.message)]
    return sorted(int(sample) for batches in seen.values() for sample in _flat(batches)), words


def _flat(batch):
    return (
        [each for part in batch for each in _flat(part)]
        if isinstance(batch, list)
        else torch.as_tensor(batch).flatten()
    )


def with_random_access(kind):
    return {deal: seen_of(DataLoader(SHARES[kind](), batch_size=4), DataParallel(deal=deal)) for deal in (None, False)}


def the_same(kind):
    return seen_of(DataLoader(SAME[kind](), batch_size=4), DataParallel())


def one_fingerprint_that_differs():
    data = Fingerprinted(range(TOTAL), f"by chance {dist.rank()}")
    return seen_of(DataLoader(data, batch_size=4), DataParallel(deal="samples"))


def a_stream(kind, deal):
    return seen_of(DataLoader(STREAMS[kind](), batch_size=4), DataParallel(deal=deal))


def a_stream_with_workers():
    return seen_of(DataLoader(OwnRank(), batch_size=4, num_workers=2), DataParallel())


class Everything(IterableDataset):
    """The same on all ranks but for what is drawn at random."""

    def __iter__(self):
        return iter([(torch.rand(1), label) for label in range(TOTAL)])


def the_same_stream():
    torch.manual_seed(dist.rank())
    return seen_of(DataLoader(Everything(), batch_size=4), DataParallel(deal="batches"))[1]


def predicted(kind):
    """What predict says of shares, and gives where it is told."""
    data = DataLoader(SplitStream() if kind == "a stream" else SHARES[kind](), batch_size=4)
    evaluator = evaluator_of()
    try:
        predict(evaluator, data)
    except ValueError as error:
        return str(error), sorted(torch.cat(predict(evaluator, data, deal="nothing")).tolist())


def another_rank_s_split():
    return seen_of(DataLoader(SplitStream(rank=1 - dist.rank()), batch_size=4), DataParallel())


def by_itself():
    """DealData on an engine without an Update, by its own choice, and beside a DataParallel in both orders."""
    stream = DataLoader(range(TOTAL), batch_size=4)
    engine, seen = Engine(lambda engine, batch: batch.tolist()), []
    engine.attach(DealData())
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.extend(engine.state.output))
    engine.run(stream, max_epochs=1)
    told = {"alone": sorted(seen)}
    for name, handlers in (
        ("first", (DealData(False), DataParallel(deal="batches"))),
        ("second", (DataParallel(deal="batches"), DealData(False))),
    ):
        told[name] = seen_of([[i] for i in range(4)], *handlers)
    return told


def evaluators():
    """The trainer's choice reaches its evaluators, unless they have one of their own."""
    told = {}
    for name, handlers, own in (
        ("brought", [DataParallel(deal=False)], None),
        ("the user's", [DealData(False), DataParallel()], None),
        ("the user's, attached last", [DataParallel(), DealData(False)], None),
        ("the evaluator's", [DataParallel(deal=False)], DealData()),
        ("by DataParallel", [DealData(False), DataParallel()], DataParallel()),
    ):
        trainer, evaluator = trainer_of(), evaluator_of()
        if own is not None:
            evaluator.attach(own)
        seen = note_batches(evaluator)
        trainer.attach(*handlers, Evaluate(evaluator, DataLoader(range(8), batch_size=2)))
        trainer.run(DataLoader(range(4), batch_size=1), max_epochs=1)
        told[name] = sorted(int(sample) for batches in seen.values() for sample in _flat(batches))
    return told


def restored():
    """The seed of the dealing goes with the handler that deals."""
    told = []
    for make in (DealData, DataParallel):
        torch.manual_seed(1)
        first, second = trainer_of(), trainer_of()
        first.attach(make())
        torch.manual_seed(2)
        second.attach(make())
        state = first.handler_states()
        second.load_handler_states(state)
        told.append(second.handler_states() == state and bool(state[make.__name__]["seeds"]))
    return told
