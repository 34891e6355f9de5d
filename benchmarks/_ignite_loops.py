"""The same task on PyTorch-Ignite, with its own handlers where it has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from _loops import Batch, Loop, Maker, loss_fn, model_and_optimizer, scheduler_of
from _measure import Action, frames_of
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import ProgressBar, TensorboardLogger
from ignite.metrics import RunningAverage
from torch import nn


def plain(folder: Path) -> Loop:
    model, optimizer = model_and_optimizer()
    return _run(create_supervised_trainer(model, optimizer, loss_fn))


def attached(folder: Path) -> Loop:
    model, optimizer = model_and_optimizer()
    scheduler = scheduler_of(optimizer)

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    def schedule() -> None:
        scheduler.step()  # which, added itself, would be given the engine as its epoch

    optimizer.register_step_pre_hook(clip)  # the trainer has no place of its own between backward and step
    trainer = create_supervised_trainer(model, optimizer, loss_fn)
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, schedule)
    ProgressBar().attach(trainer, metric_names="all", event_name=Events.ITERATION_COMPLETED(every=100))
    every_50 = Events.ITERATION_COMPLETED(every=50)
    logger = TensorboardLogger(log_dir=str(folder))
    logger.attach_output_handler(
        trainer, every_50, tag="train", metric_names="all", output_transform=lambda loss: {"loss_now": loss}
    )
    logger.attach_opt_params_handler(trainer, every_50, optimizer=optimizer)
    trainer.add_event_handler(Events.COMPLETED, logger.close)
    return _run(trainer)


def _run(trainer: Engine) -> Loop:
    def train(data: Iterable[Batch]) -> None:
        trainer.run(data, max_epochs=1)

    return train


def noop_run(process: Callable[[Any, Any], None], data: Sequence[Any], every: int | None = None) -> Action:
    """A run over `data` of an engine without handlers, or with one that does nothing, `every` steps."""
    engine = Engine(process)
    if every is not None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=every), lambda: None)
    return lambda: engine.run(data, max_epochs=1)


def frames() -> dict[str, int]:
    """Frames of Ignite above a process function and a handler."""
    seen = {}

    def process(engine: Engine, batch: object) -> None:
        seen["process function"] = frames_of("ignite.")

    def handler(engine: Engine) -> None:
        seen["handler of an iteration"] = frames_of("ignite.")

    engine = Engine(process)
    engine.add_event_handler(Events.ITERATION_COMPLETED, handler)
    engine.run([None], max_epochs=1)
    return seen


LOOPS: dict[str, Maker] = {"Ignite": plain, "Ignite, all attached": attached}
