"""What the parts of a loader know beside the global generators goes on too, wherever in their attributes it lies."""

import functools
import itertools
import random

import numpy
import pytest
import torch
from passes import BATCH, Indices, differs, stops
from torch.utils.data import ConcatDataset, DataLoader, Sampler, Subset
from torchdata.stateful_dataloader import StatefulDataLoader

from leyden.engine import Engine, Events
from leyden.engine.data.part_states import parts, parts_state

GENERATORS = [
    (lambda: torch.Generator().manual_seed(1), lambda own: torch.rand((), generator=own).item()),
    (lambda: random.Random(1), lambda own: own.random()),
    (lambda: numpy.random.default_rng(1), lambda own: float(own.random())),
    (lambda: numpy.random.RandomState(1), lambda own: float(own.rand())),
]


class Noise:
    def __init__(self, generator, draw):
        self.generator, self.draw = generator, draw

    def __call__(self, value):
        return value + self.draw(self.generator)


class Slotted:
    __slots__ = ("noise",)

    def __init__(self, noise):
        self.noise = noise

    def __call__(self, value):
        return self.noise(value)


class Counter:
    """Tells its state."""

    def __init__(self):
        self.calls = 0

    def __call__(self, value):
        self.calls += 1
        return value + self.calls / 1000

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class Transformed(Indices):
    def __init__(self, *transforms):
        super().__init__()
        self.transforms = list(transforms)

    def __getitem__(self, index):
        return functools.reduce(lambda value, each: each(value), self.transforms, float(index))


def in_closure(noise):
    return lambda batch: torch.tensor([noise(value) for value in batch])


class Collate:
    def __init__(self, noise):
        self.noise = noise

    def __call__(self, batch):
        return torch.tensor([self.noise(value) for value in batch])

    collate = __call__


PLACES = {
    "a transform": lambda noise: DataLoader(Transformed(noise), BATCH, shuffle=True),
    "a transform below a transform": lambda noise: DataLoader(Transformed(abs, Slotted(noise)), BATCH),
    "a part of a ConcatDataset": lambda noise: DataLoader(ConcatDataset([range(5), Transformed(noise)]), BATCH),
    "a subset": lambda noise: DataLoader(Subset(Transformed(noise), range(20)), BATCH, shuffle=True),
    "a callable collate_fn": lambda noise: DataLoader(Indices(), BATCH, collate_fn=Collate(noise)),
    "a bound collate_fn": lambda noise: DataLoader(Indices(), BATCH, collate_fn=Collate(noise).collate),
    "a closure": lambda noise: DataLoader(Indices(), BATCH, collate_fn=in_closure(noise)),
    "a partial": lambda noise: DataLoader(
        Indices(),
        BATCH,
        collate_fn=functools.partial(lambda noise, batch: torch.tensor(list(map(noise, batch))), noise),
    ),
    "below a loader with state": lambda noise: StatefulDataLoader(Transformed(noise), BATCH, shuffle=True),
}


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [*range(len(GENERATORS)), "its own state"])
def test_it_is_found(place, kind):
    def make():
        return PLACES[place](
            Counter() if kind == "its own state" else Noise(GENERATORS[kind][0](), GENERATORS[kind][1])
        )

    batches = 7 if "subset" in place else 10 if "Concat" in place else 8
    for stop in stops(None, batches)[2::2]:
        assert differs(make, stop) is None


def test_a_generator_in_a_list_is_found_too():
    class Data(Indices):
        def __init__(self):
            super().__init__()
            self.generators = [random.Random(place) for place in range(3)]

        def __getitem__(self, index):
            return self.generators[index % 3].random()

    assert differs(lambda: DataLoader(Data(), BATCH), (Events.ITERATION_COMPLETED, 5)) is None


class CountsPasses(Sampler):
    """Orders that hang on how many there were."""

    def __init__(self):
        self.passes = 0

    def __len__(self):
        return 23

    def __iter__(self):
        self.passes += 1
        return iter(torch.randperm(23, generator=torch.Generator().manual_seed(self.passes)).tolist())

    def state_dict(self):
        return {"passes": self.passes}

    def load_state_dict(self, state):
        self.passes = state["passes"]


class KnowsItsPlace(CountsPasses):
    """Goes on in mid-pass where it was told to."""

    def __init__(self):
        super().__init__()
        self.place = 0

    def __iter__(self):
        order = list(super().__iter__())
        for index in order[self.place :]:
            self.place += 1
            yield index
        self.place = 0

    def state_dict(self):
        return {"passes": self.passes, "place": self.place}

    def load_state_dict(self, state):
        self.passes, self.place = state["passes"], state["place"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampler", [CountsPasses, KnowsItsPlace])
def test_a_sampler_with_a_state_of_its_own_is_asked_for_it(sampler, workers):
    def make():
        return DataLoader(Indices(), BATCH, sampler=sampler(), num_workers=workers)

    for stop in stops(None)[1:9:2] if workers else stops(None):
        assert differs(make, stop) is None


def test_many_samples_and_the_engine_itself_are_not_looked_into():
    dataset = Transformed()
    dataset.samples = [(object(), [place]) for place in range(5000)]
    dataset.engine = Engine(lambda engine, batch: None)
    dataset.itself = dataset
    found = itertools.islice(parts(DataLoader(dataset, BATCH)), 1000)
    assert len(list(found)) < 30


def test_a_model_that_a_dataset_computes_with_is_not_saved():
    dataset = Transformed(torch.nn.Linear(2, 2))
    dataset.optimizer = torch.optim.SGD(dataset.transforms[0].parameters(), lr=0.1)
    assert parts_state(DataLoader(dataset, BATCH)) == {}
