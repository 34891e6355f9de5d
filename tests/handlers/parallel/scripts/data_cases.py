"""What data each rank gets, and when ranks stop: each function is run by every rank, and gives plain values."""

import random
import warnings

import numpy
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update
from leyden.handlers import DataParallel, EarlyStopping, Evaluate, TerminateOnNan

TOTAL = 13


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(TOTAL))


class Blocks(Sampler):
    """A batch sampler of one's own: batches of 1, 2, 3, ... in random order."""

    def __iter__(self):
        blocks = [[0], [1, 2], [3, 4, 5], [6, 7, 8, 9], [10, 11, 12]]
        return iter([blocks[i] for i in torch.randperm(len(blocks)).tolist()])

    def __len__(self):
        return 5


KINDS = {
    "sequential": lambda: DataLoader(range(TOTAL), batch_size=2),
    "shuffled": lambda: DataLoader(range(TOTAL), batch_size=2, shuffle=True),
    "a batch sampler": lambda: DataLoader(
        range(TOTAL), batch_sampler=BatchSampler(RandomSampler(range(TOTAL)), 2, False)
    ),
    "a batch sampler of one's own": lambda: DataLoader(range(TOTAL), batch_sampler=Blocks()),
    "batch_size=None": lambda: DataLoader(range(TOTAL), batch_size=None, shuffle=True),
    "an iterable dataset": lambda: DataLoader(Stream(), batch_size=2),
    "a list": lambda: [[i] for i in range(TOTAL)],
    "a generator": lambda: ([i] for i in range(TOTAL)),
}


def trainer_of(process=lambda engine, batch: None):
    """An engine with an update, as the trainers of a job have."""
    engine = Engine(process)
    model = nn.Linear(1, 1)
    Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    return engine


def evaluator_of():
    return Engine(lambda engine, batch: batch, training=False)


def plain(batch):
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def note_batches(engine):
    """{epoch: the batches of it}, filled as the engine runs."""
    batches = {}
    engine.add_event_handler(
        Events.ITERATION_STARTED,
        lambda engine: batches.setdefault(engine.state.epoch, []).append(plain(engine.state.batch)),
    )
    return batches


def trained_on(data, epochs=1, seed=None, **arguments):
    if seed is not None:
        torch.manual_seed(seed)
    trainer = trainer_of()
    trainer.attach(DataParallel(deal="batches"))
    batches = note_batches(trainer)
    trainer.run(data, max_epochs=epochs, **arguments)
    return batches


def training(kind):
    return trained_on(KINDS[kind]())[1]


def three_epochs():
    return trained_on(KINDS["shuffled"](), epochs=3, seed=7 if dist.rank() == 0 else 8)


def three_epochs_again():
    """The seed of rank 0 counts; what a rank drew before does not."""
    torch.manual_seed(7 if dist.rank() == 0 else 99)
    torch.rand(dist.rank() + 5)
    return trained_on(KINDS["shuffled"](), epochs=3)


def three_epochs_of_another_seed():
    return trained_on(KINDS["shuffled"](), epochs=3, seed=1)


def epochs_longer_than_the_data():
    return trained_on(DataLoader(range(12), batch_size=2, shuffle=True), epochs=2, epoch_length=6)


def weighted_sampling():
    weights = torch.tensor([1.0, 3.0, 6.0])
    loader = DataLoader(range(3), batch_size=50, sampler=WeightedRandomSampler(weights, 3000))
    return [sample for batch in trained_on(loader)[1] for sample in batch]


def generators_after_drawing():
    """The random numbers that a step gets are not touched by the dealing: they are those of a run without data."""

    def numbers_in_steps(data, **arguments):
        torch.manual_seed(dist.rank())
        numpy.random.seed(dist.rank())
        random.seed(dist.rank())
        numbers = []

        def process(engine, batch):
            numbers.append((torch.rand(()).item(), numpy.random.random(), random.random()))

        trainer = trainer_of(process)
        torch.manual_seed(dist.rank())
        trainer.attach(DataParallel(deal="batches"))
        trainer.run(data, **arguments)
        return numbers

    shuffled = DataLoader(range(12), batch_size=2, shuffle=True, generator=torch.Generator())
    return numbers_in_steps(shuffled) == numbers_in_steps(None, epoch_length=3)


def restored():
    """A trainer made anew, with another seed, goes on with the orders of the one whose state it has."""

    def make(seed):
        torch.manual_seed(seed)
        trainer = trainer_of()
        trainer.attach(DataParallel(deal="batches"))
        return trainer, note_batches(trainer)

    first, before = make(1)
    first.run(KINDS["shuffled"](), max_epochs=1)
    state = first.state_dict()
    first.run(KINDS["shuffled"](), max_epochs=3)
    second, after = make(2)
    second.load_state_dict(state)
    second.run(KINDS["shuffled"](), max_epochs=3)
    return {"whole": before, "restored": after}


def exhausted_generator():
    """What a run over it fires, and what it says."""
    trainer, events = trainer_of(), []
    trainer.attach(DataParallel(deal="batches"))
    for event in (Events.EPOCH_STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED, Events.COMPLETED):
        trainer.add_event_handler(event, events.append, event.value)
    said = error_of(lambda: trainer.run((i for i in range(4)), max_epochs=3))
    return {"events": events, "said": said}


def own_distributed_sampler():
    loader = DataLoader(range(12), batch_size=2, sampler=DistributedSampler(range(12), seed=3))
    trainer = trainer_of()
    trainer.attach(DataParallel(deal="batches"))
    batches = note_batches(trainer)
    trainer.run(loader, max_epochs=2)
    by_hand = {}
    for epoch in (1, 2):
        loader.sampler.set_epoch(epoch)
        by_hand[epoch] = [plain(batch) for batch in loader]
    return {"batches": batches, "by hand": by_hand}


def evaluated(data, *attached_to_evaluator, epochs=1, evaluations=1, deal="batches"):
    """The batches of each evaluation; the trainer sees to it that the evaluator's data is dealt."""
    trainer, evaluator = trainer_of(), evaluator_of()
    evaluator.attach(*attached_to_evaluator)
    batches = []
    evaluator.add_event_handler(Events.STARTED, lambda: batches.append([]))
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: batches[-1].append(plain(engine.state.output))
    )
    for i in range(evaluations):
        trainer.attach(Evaluate(evaluator, data, prefix=f"{i}/"))
    trainer.attach(DataParallel(deal=deal))
    trainer.run([[0], [1]], max_epochs=epochs)
    return batches


def evaluation(kind):
    return evaluated(KINDS[kind]())[0]


def evaluation_of_one_sample():
    """The other rank's shard is empty; both run the evaluator's events to the end, more than once."""
    return evaluated(DataLoader([5], batch_size=4), epochs=2)


def evaluation_twice_by_one_evaluator():
    return evaluated(KINDS["sequential"](), evaluations=2)


def evaluation_by_an_evaluator_that_deals_itself():
    return evaluated(KINDS["sequential"](), DataParallel(deal="batches"))


def evaluation_of_exhausted_data():
    """The second evaluation has nothing to evaluate, on no rank."""
    return error_of(lambda: evaluated(iter([[0], [1], [2]]), epochs=2))


def evaluation_by_an_engine_of_ones_own():
    """Made as any engine is: `Evaluate` says that it evaluates. One rank has nothing to evaluate."""
    trainer, evaluator = trainer_of(), Engine(lambda engine, batch: batch)
    trainer.attach(DataParallel(deal="batches"), Evaluate(evaluator, DataLoader([5], batch_size=4)))
    batches = note_batches(evaluator)
    trainer.run([[0], [1]])
    return batches


def evaluation_in_mid_epoch():
    """Uneven shards: one rank has more batches to evaluate than the other, in the midst of training."""
    trainer, evaluator = trainer_of(), evaluator_of()
    trainer.attach(DataParallel(deal="batches"), Evaluate(evaluator, range(5), on=Events.ITERATION_COMPLETED(every=2)))
    batches = note_batches(evaluator)
    trainer.run([[i] for i in range(10)])
    return {"iterations": trainer.state.iteration, "evaluated": batches}


def an_evaluator_alone():
    evaluator = evaluator_of()
    evaluator.attach(DataParallel(deal="batches"))
    batches = note_batches(evaluator)
    evaluator.run(KINDS["shuffled"]())
    return batches[1]


def error_of(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            function()
        except ValueError as error:
            return str(error)
    return [str(warning.message) for warning in caught]


def empty_data():
    def run(data):
        trainer = trainer_of()
        trainer.attach(DataParallel(deal="batches"))
        trainer.run(data)

    return {
        "list": error_of(lambda: run([])),
        "generator": error_of(lambda: run(iter([]))),
        "one batch for two ranks": error_of(lambda: run([[0]])),
    }


def stopped_by_one_rank(who, how="terminate"):
    trainer = trainer_of()
    trainer.attach(DataParallel(deal="batches"))
    if dist.rank() == who:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), getattr(trainer, how))
    ends = []
    for event in (Events.TERMINATE, Events.INTERRUPT, Events.COMPLETED, Events.CLOSED):
        trainer.add_event_handler(event, ends.append, event.value)
    trainer.run([[0]] * 4000, max_epochs=2)
    return {"iterations": trainer.state.iteration, "ends": ends}


def terminated():
    return stopped_by_one_rank(1)


def interrupted():
    return stopped_by_one_rank(0, "interrupt")


def early_stopping():
    """The metric gets worse on one rank only."""
    trainer = trainer_of()
    trainer.attach(DataParallel(deal="batches"))
    sign = 1 if dist.rank() == 0 else -1
    trainer.attach(EarlyStopping(lambda engine: engine.state.epoch * sign, mode="max", patience=2))
    return trainer.run([[0]] * 8, max_epochs=20).epoch


def diverged():
    """The loss of one rank is lost, and with the exchanged gradients the parameters of all."""

    def process(engine, batch):
        return float("nan") if dist.rank() == 1 and engine.state.iteration == 5 else 1.0

    trainer = trainer_of(process)
    trainer.attach(DataParallel(deal="batches"), TerminateOnNan())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.run([[0]] * 4000)
    return {"iterations": trainer.state.iteration, "diverged": trainer.state.diverged}


def terminated_when_it_was_over():
    """As in one process: a wish that comes after the last iteration ends no later run."""
    trainer = trainer_of()
    trainer.attach(DataParallel(deal="batches"))
    trainer.add_event_handler(Events.COMPLETED, trainer.terminate)
    return [trainer.run([[0]] * 8, max_epochs=epochs).iteration for epochs in (1, 2, 3)]


def failed_and_run_again():
    """An error in the evaluation of both ranks reaches both callers; the same engines run again."""
    trainer, evaluator = trainer_of(), evaluator_of()
    trainer.attach(DataParallel(deal="batches"), Evaluate(evaluator, range(4)))

    def fail():
        raise ValueError("lost")

    handle = evaluator.add_event_handler(Events.ITERATION_COMPLETED, fail)
    first = error_of(lambda: trainer.run([[0]] * 8, max_epochs=1))
    handle.remove()
    batches = note_batches(evaluator)
    trainer.run([[0]] * 8, max_epochs=3)
    return {"error": first, "iterations": trainer.state.iteration, "evaluated": batches}


CASES = [
    three_epochs, three_epochs_again, three_epochs_of_another_seed, epochs_longer_than_the_data,
    restored, weighted_sampling, exhausted_generator, generators_after_drawing, own_distributed_sampler,
    evaluation_of_one_sample,
    evaluation_twice_by_one_evaluator, evaluation_by_an_evaluator_that_deals_itself, evaluation_in_mid_epoch,
    evaluation_of_exhausted_data,
    an_evaluator_alone, empty_data, terminated, interrupted, early_stopping, diverged, terminated_when_it_was_over,
    failed_and_run_again,
]  # fmt: skip
