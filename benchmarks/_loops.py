"""One training task, Linear(32, 2) on batches of 4 by SGD, as a bare loop and on leyden's engine.

A maker prepares such a loop, with a model and an optimizer of its own, and gives back the function that trains on
batches. `folder` is where it may write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from leyden.engine import Engine, supervised_trainer
from leyden.handlers import ClipGradients, Schedule
from leyden.handlers.loggers import TensorBoardLogger
from leyden.handlers.monitoring import ProgressBar
from leyden.metrics import RunningAverage

Batch = tuple[torch.Tensor, torch.Tensor]
Loop = Callable[[Iterable[Batch]], object]
Maker = Callable[[Path], Loop]

loss_fn = nn.functional.cross_entropy


class Batches:
    """One batch, a number of times. No list: Lightning takes that for several loaders."""

    def __init__(self, count: int) -> None:
        self.batches = [(torch.randn(4, 32), torch.randint(0, 2, (4,)))] * count

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(32, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def scheduler_of(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1000)


def bare(folder: Path) -> Loop:
    """The loop that all others are compared with: what PyTorch's tutorials write, and nothing beside it."""
    model, optimizer = model_and_optimizer()

    def train(data: Iterable[Batch]) -> None:
        for x, y in data:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()

    return train


def bare_clipped_scheduled(folder: Path) -> Loop:
    """The bare loop with two of the four attachments by torch's own functions; it averages, shows and logs nothing."""
    model, optimizer = model_and_optimizer()
    scheduler = scheduler_of(optimizer)

    def train(data: Iterable[Batch]) -> None:
        for x, y in data:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()

    return train


def leyden_plain(folder: Path) -> Loop:
    model, optimizer = model_and_optimizer()
    return _run(supervised_trainer(model, optimizer, loss_fn))


def leyden_attached(folder: Path) -> Loop:
    model, optimizer = model_and_optimizer()
    trainer = supervised_trainer(model, optimizer, loss_fn)
    RunningAverage().attach(trainer, "loss")
    trainer.attach(
        ProgressBar(every=100),
        ClipGradients(norm=1.0),
        Schedule(scheduler_of(optimizer)),
        TensorBoardLogger(folder, every=50),
    )
    return _run(trainer)


def _run(trainer: Engine[Batch, torch.Tensor]) -> Loop:
    def train(data: Iterable[Batch]) -> None:
        trainer.run(data, max_epochs=1)

    return train


LOOPS: dict[str, Maker] = {
    "bare loop": bare,
    "bare loop, clip and schedule": bare_clipped_scheduled,
    "leyden": leyden_plain,
    "leyden, all attached": leyden_attached,
}
