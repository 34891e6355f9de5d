"""The data of evaluations after a resume: what the training draws is what it would have drawn."""

import copy
import random

import numpy
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from leyden.engine import Engine, Events
from leyden.engine.randomness import host_state, set_host_state
from leyden.handlers import CombinedLoader, Evaluate


class Noise:
    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, batch):
        return torch.tensor([each + torch.rand((), generator=self.generator).item() for each in batch])


def staying():
    return DataLoader(range(8), 2, num_workers=1, persistent_workers=True)


DATA = {
    "workers that stay": staying,
    "workers that stay, shuffled": lambda: DataLoader(
        range(8), 2, shuffle=True, num_workers=1, persistent_workers=True
    ),
    "two loaders": lambda: CombinedLoader([staying(), staying()]),
    "a generator in a collate function": lambda: DataLoader(range(8), 2, collate_fn=Noise()),
    "a loader with state": lambda: StatefulDataLoader(
        range(8), 2, shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "a shuffling loader": lambda: DataLoader(range(8), 2, shuffle=True),
}


def losses(make, stop=None, state=None):
    torch.manual_seed(1)
    random.seed(1)
    numpy.random.seed(1)
    seen = []
    evaluator = Engine(lambda engine, batch: seen.append(("val", str(batch))), training=False)
    trainer = Engine(lambda engine, batch: seen.append((engine.state.iteration, torch.rand(()).item())))
    data = make()
    trainer.attach(Evaluate(evaluator, data))
    saved = []

    def save():
        saved.append((copy.deepcopy(trainer.state_dict()), copy.deepcopy(host_state())))
        trainer.terminate()

    if stop is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), save)
        trainer.add_event_handler(Events.COMPLETED, seen.clear)
    if state is not None:
        trainer.load_state_dict(state[0])
        set_host_state(state[1])
    trainer.run(range(3), max_epochs=4)
    for each in getattr(data, "loaders", [data]):
        if getattr(each, "_iterator", None) is not None and each.num_workers:
            each._iterator._shutdown_workers()
    return saved[0] if saved else seen


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("kind", DATA)
def test_the_run_goes_on_with_the_same_numbers(kind):
    whole = losses(DATA[kind])
    state = losses(DATA[kind], stop=5)  # after one evaluation
    rest = losses(DATA[kind], state=state)
    assert rest == whole[-len(rest) :]
    assert len(rest) > 12
