"""One training task, a GPT in bf16, by hand and on leyden's engine with ten handlers attached.

A maker gives a loop: the function that trains on batches, the weights that it trains with their averages after them,
and the handlers that are attached.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from _steps import Terminal
from torch import nn
from torch.optim import lr_scheduler

from leyden.engine import Engine, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    ClipGradients,
    EarlyStopping,
    Evaluate,
    GradientAccumulation,
    MixedPrecision,
    ProgressBar,
    Schedule,
    TerminateOnNan,
)
from leyden.handlers.data.device_transfer import DeviceTransfer
from leyden.handlers.model.compile import Compile
from leyden.handlers.training.ema import EMA
from leyden.metrics import Loss

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from language_model import GPT, Batch, Shape, loss_fn, number_of_targets

NORM, DECAY, WARMUP, STEPS = 1.0, 0.999, 10, 100_000


@dataclass(frozen=True)
class Task:
    """What is trained on what, where."""

    shape: Shape
    batch_size: int
    accumulate: int
    compiled: bool
    device: torch.device

    def make_model(self) -> GPT:
        torch.manual_seed(0)
        return GPT(self.shape).to(self.device)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), fused=self.device.type == "cuda")

    def make_batches(self, number: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(0)
        size = (self.batch_size, self.shape.context + 1)
        drawn = [torch.randint(self.shape.vocabulary, size, generator=generator) for _ in range(number)]
        batches = [(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()) for tokens in drawn]
        if self.device.type == "cuda":  # else the bare loop would wait for each copy
            batches = [(inputs.pin_memory(), targets.pin_memory()) for inputs, targets in batches]
        return batches


class Loop(NamedTuple):
    train: Callable[[Iterable[Batch]], object]
    weights: Callable[[], list[torch.Tensor]]
    handlers: tuple[str, ...] = ()


def bare(task: Task) -> Loop:
    """As one writes it for speed: nothing is copied to the host, what can be done on all gradients at once is."""
    model = task.make_model()
    optimizer = task.make_optimizer(model)
    warmup = lr_scheduler.LinearLR(optimizer, total_iters=WARMUP)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [WARMUP])
    autocast = torch.autocast(task.device.type, dtype=torch.bfloat16)
    parameters = list(model.parameters())
    averages: list[torch.Tensor] = []
    if task.compiled:
        model.compile()

    def train(data: Iterable[Batch]) -> None:
        model.train()
        total = torch.zeros((), device=task.device)
        for i, batch in enumerate(data):
            inputs, targets = (tokens.to(task.device, non_blocking=True) for tokens in batch)
            with autocast:
                loss = loss_fn(model(inputs), targets)
            number = number_of_targets((inputs, targets))
            (loss * number).backward()
            total += number
            if (i + 1) % task.accumulate == 0:
                torch._foreach_mul_([parameter.grad for parameter in parameters], 1 / total)
                total.zero_()
                nn.utils.clip_grad_norm_(parameters, NORM)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                average()

    @torch.no_grad()
    def average() -> None:
        if averages:
            torch._foreach_lerp_(averages, parameters, 1 - DECAY)
        else:
            averages.extend(parameter.clone() for parameter in parameters)

    return Loop(train, lambda: [*parameters, *averages])


def attached(task: Task) -> Loop:
    """The same by handlers; the last four, which watch the run, have no counterpart in the bare loop."""
    model = task.make_model()
    optimizer = task.make_optimizer(model)
    trainer: Engine[Batch, torch.Tensor] = supervised_trainer(model, optimizer, loss_fn, device=task.device)
    evaluator = supervised_evaluator(model, metrics={"loss": Loss(loss_fn)}, device=task.device)
    ema = EMA(DECAY)
    trainer.attach(
        MixedPrecision("bf16"),
        GradientAccumulation(task.accumulate, weight=number_of_targets),
        ClipGradients(norm=NORM),
        Schedule(lr_scheduler.CosineAnnealingLR(optimizer, STEPS), warmup=WARMUP),
        ema,
        DeviceTransfer(),
        Evaluate(evaluator, task.make_batches(1), prefix="val/"),
        EarlyStopping("val/loss", mode="min", patience=STEPS),
        TerminateOnNan(),
        ProgressBar(file=Terminal()),
    )
    if task.compiled:
        trainer.attach(Compile())

    def train(data: Iterable[Batch]) -> None:
        trainer.run(data, max_epochs=trainer.state.epoch + 1)

    return Loop(train, lambda: [*model.parameters(), *ema.averaged().values()], tuple(trainer.handlers))
