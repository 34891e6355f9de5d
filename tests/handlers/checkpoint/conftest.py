"""What the tests of checkpoints share: small runs that can be made twice, alike to the bit."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from leyden.engine import Events, supervised_trainer

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "scripts")]


def batches(count=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(6, 4, generator=generator), torch.randint(0, 2, (6,), generator=generator)) for _ in range(count)
    ]


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))


@pytest.fixture
def make_run():
    """A function that makes a run: model, optimizer, trainer with handlers, data, and the losses that will be."""

    def make(*handlers, model=network, optimizer=None, data=None):
        torch.manual_seed(0)
        built = model()
        make_optimizer = optimizer or (lambda net: torch.optim.AdamW(net.parameters(), lr=1e-2))
        made = make_optimizer(built)
        trainer = supervised_trainer(built, made, nn.CrossEntropyLoss())
        losses = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output))
        trainer.attach(*handlers)
        return SimpleNamespace(
            model=built, optimizer=made, trainer=trainer, data=batches() if data is None else data, losses=losses
        )

    return make


@pytest.fixture
def same():
    """A function that says whether two trees of data are equal, tensors to the bit and in dtype."""

    def equal(a, b):
        if isinstance(a, torch.Tensor):
            return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, dict):
            return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
        return type(a) is type(b) and (a == b or (a != a and b != b))

    return equal


@pytest.fixture
def metric_of():
    """A function that gives a trainer a metric, "score", with a value for each epoch; None is none."""

    def declare(trainer, values):
        trainer.declare_metrics("score")

        @trainer.on(Events.EPOCH_COMPLETED)
        def evaluate():
            value = values[trainer.state.epoch - 1]
            if value is not None:
                trainer.state.metrics["score"] = value

    return declare


@pytest.fixture
def epochs_in():
    """A function from a directory to the epochs of the checkpoints in it."""
    return lambda directory: sorted(int(path.name[6:10]) for path in directory.glob("epoch=*"))
