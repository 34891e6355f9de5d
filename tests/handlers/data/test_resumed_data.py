"""Data with handlers on it goes on at its very batch in another process."""

import copy
import random

import numpy
import pytest
import torch
from random_samples import Augmented
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from leyden.engine import Engine, Events
from leyden.engine.randomness import host_state, set_host_state
from leyden.handlers.data import CombinedLoader, DeviceTransfer, LimitBatches, Overfit, Reproducible


class Indices(Augmented):
    read = None

    def __getitem__(self, index):
        if self.read is not None:
            self.read.append(index)
        return index


def loader(total, **arguments):
    return DataLoader(Indices(total), 2, shuffle=True, **arguments)


class WithoutLength:
    """Batches of a loader, as an iterable that does not know its length."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(list(self.data))


class Pairs(Sampler):
    """It draws all along a pass."""

    def __len__(self):
        return 5

    def __iter__(self):
        left = list(range(10))
        while left:
            yield [left.pop(random.randrange(len(left))) for _ in range(2)]


def pair(mode):
    return lambda: CombinedLoader({"a": loader(6), "b": loader(14, generator=torch.Generator())}, mode)


def alike(mode):
    """Neither has a generator: both draw their orders from the numbers of the process."""
    return lambda: CombinedLoader([loader(6), loader(14)], mode)


MODES = ("min_size", "max_size", "max_size_cycle", "sequential")
DATA = {
    **{mode: pair(mode) for mode in MODES},
    **{f"{mode}, alike": alike(mode) for mode in MODES},
    "streams of unknown length": lambda: CombinedLoader([WithoutLength(loader(6)), loader(14)], "max_size_cycle"),
    "limit": lambda: loader(14),
    "a share": lambda: loader(14),
    "limit of two": pair("max_size_cycle"),
    "overfit": lambda: loader(14),
    "transfer": lambda: loader(14),
    "transfer of what draws all along": lambda: DataLoader(Indices(10), batch_sampler=Pairs()),
    "a cycle, transferred": alike("max_size_cycle"),
    "one after the other, transferred": alike("sequential"),
    "reproducible": lambda: DataLoader(Augmented(), 2, shuffle=True),
    "reproducible cycle": pair("max_size_cycle"),
    "all": pair("max_size_cycle"),
}
HANDLERS = {
    "limit": [lambda: LimitBatches(4)],
    "a share": [lambda: LimitBatches(0.5)],
    "limit of two": [lambda: LimitBatches(5)],
    "overfit": [lambda: Overfit(3)],
    "transfer": [lambda: DeviceTransfer("meta")],
    "transfer of what draws all along": [lambda: DeviceTransfer("meta")],
    "a cycle, transferred": [lambda: DeviceTransfer("meta", prefetch=2)],
    "one after the other, transferred": [lambda: DeviceTransfer("meta")],
    "reproducible": [Reproducible],
    "reproducible cycle": [Reproducible],
    "all": [Reproducible, lambda: LimitBatches(6), lambda: DeviceTransfer("meta", prefetch=2)],
}


class Stopped(Exception):
    """Stands for the end of a process."""


def plain(batch):
    if isinstance(batch, dict):
        return {key: plain(each) for key, each in batch.items()}
    if isinstance(batch, torch.Tensor):
        return "moved" if batch.device.type == "meta" else batch.tolist()
    return [plain(each) for each in batch] if isinstance(batch, list | tuple) else batch


def run(kind, *, stop=None, state=None, epoch_length=None):
    seed = 5 if state is None else random.SystemRandom().randrange(2**31)
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed)
    seen, saved, read = [], [], []

    def process(engine, batch):
        drawn = random.random(), torch.rand(()).item()
        seen.append((engine.state.epoch, engine.state.iteration, plain(batch), drawn))

    engine = Engine(process)
    engine.attach(*[make() for make in HANDLERS.get(kind, ())])

    def save():
        saved.append((copy.deepcopy(engine.state_dict()), copy.deepcopy(host_state())))
        raise Stopped

    if stop is not None:
        engine.add_event_handler(stop[0](once=stop[1]), save)
    if state is not None:
        engine.load_state_dict(state[0])
        set_host_state(state[1])
    data = DATA[kind]()
    if kind.startswith("transfer"):  # what comes can't be seen on that device: its order is noted where it is read
        data.dataset.read = read
    try:
        engine.run(data, max_epochs=3, epoch_length=epoch_length)
    except Stopped:
        return seen, read, saved[0]
    return seen, read


@pytest.mark.filterwarnings("ignore:to go on where the run was")
@pytest.mark.parametrize("epoch_length", [None, 3, 11])
@pytest.mark.parametrize("kind", DATA)
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not(kind, epoch_length):
    if epoch_length is None and kind == "streams of unknown length":
        epoch_length = 7
    whole, read = run(kind, epoch_length=epoch_length)
    length = len(whole) // 3
    moments = [(Events.ITERATION_COMPLETED, each) for each in range(1, 3 * length, 1 if length < 8 else 3)]
    moments += [(Events.EPOCH_COMPLETED, 1), (Events.EPOCH_COMPLETED, 2)]
    if epoch_length is None:
        moments += [(Events.EPOCH_STARTED, 1), (Events.EPOCH_STARTED, 2)]
    wrong = []
    for stop in moments:
        before, read_before, state = run(kind, stop=stop, epoch_length=epoch_length)
        after, read_after = run(kind, state=state, epoch_length=epoch_length)
        if before + after != whole:
            pairs = zip(before + after, whole, strict=False)
            wrong.append((stop, next((pair for pair in pairs if pair[0] != pair[1]), len(after))))
        if read and read_before[: 2 * len(before)] + read_after != read:
            wrong.append((stop, read_before, read_after, read))
    assert wrong == []


@pytest.mark.parametrize("kind", [kind for kind in DATA if kind != "streams of unknown length"])
def test_a_run_stopped_between_two_epochs_may_be_stopped_again_as_the_next_one_opens(kind):
    whole, read = run(kind)
    before, read_before, state = run(kind, stop=(Events.EPOCH_COMPLETED, 1))
    nothing, _, state = run(kind, stop=(Events.EPOCH_STARTED, 2), state=state)
    after, read_after = run(kind, state=state)
    assert nothing == []
    assert before + after == whole
    assert read_before + read_after == read


def test_a_sampler_that_is_told_its_epoch_among_several_loaders():
    """As the epoch opens, also where a run goes on between two epochs."""

    def make():
        samplers = [DistributedSampler(range(14), 2, 0) for _ in range(2)]
        return CombinedLoader([DataLoader(Indices(14), 2, sampler=each) for each in samplers])

    def orders(epochs, state=None):
        seen, data = [], make()
        engine = Engine(lambda engine, batch: seen.append(plain(batch)))

        @engine.on(Events.EPOCH_STARTED)
        def tell():
            for each in data.loaders:
                each.sampler.set_epoch(engine.state.epoch)

        if state is not None:
            engine.load_state_dict(state)
        engine.run(data, max_epochs=epochs)
        return seen, engine.state_dict()

    before, state = orders(1)
    assert before + orders(2, state)[0] == orders(2)[0]


def test_another_engine_may_go_through_the_same_loaders_in_mid_epoch():
    def orders(state=None, stop=None):
        torch.manual_seed(5)
        seen, data = [], alike("max_size_cycle")()
        engine, other = Engine(lambda engine, batch: seen.append(plain(batch))), Engine(lambda engine, batch: None)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=3), lambda: other.run(data))
        if stop is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), engine.interrupt)
        if state is not None:
            engine.load_state_dict(state[0])
            set_host_state(state[1])
        engine.run(data, max_epochs=2)
        return seen, (engine.state_dict(), host_state())

    whole, _ = orders()
    before, state = orders(stop=6)
    assert before + orders(state)[0] == whole
