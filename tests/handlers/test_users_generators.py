"""What a user draws is the same with a handler and without: none takes from python's, numpy's or torch's numbers."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    EMA,
    SWA,
    BatchSizeSchedule,
    Checkpoint,
    ClipGradients,
    DataParallel,
    DealData,
    DeviceTransfer,
    EarlyStopping,
    Evaluate,
    Finetune,
    Freeze,
    GradientAccumulation,
    LearningRateFinder,
    LimitBatches,
    MixedPrecision,
    MLflowLogger,
    Preemption,
    ProgressBar,
    Schedule,
    TensorBoardLogger,
    TerminateOnNan,
    TimeLimit,
)
from leyden.metrics import Loss

Attach = Callable[[Engine, Path], object]


def evaluation(every: int) -> Evaluate:
    model = torch.nn.Linear(2, 1)
    evaluator = supervised_evaluator(model, metrics={"loss": Loss(torch.nn.functional.mse_loss)})
    return Evaluate(evaluator, [(torch.ones(2, 2), torch.ones(2, 1))], every=every)


def optimizer(engine: Engine) -> Any:
    return engine.updates["default"].optimizer


HANDLERS: dict[str, Attach] = {
    "BatchSizeSchedule": lambda e, _: BatchSizeSchedule({1: 4}),
    "Checkpoint": lambda e, place: Checkpoint(place / "checkpoints"),
    "ClipGradients": lambda e, _: ClipGradients(norm=1.0),
    "DataParallel": lambda e, _: DataParallel(),
    "DealData": lambda e, _: DealData(),
    "DeviceTransfer": lambda e, _: DeviceTransfer(),
    "EMA": lambda e, _: EMA(0.9),
    "EarlyStopping": lambda e, _: EarlyStopping(lambda engine: 0.0, mode="max", patience=100),
    "Evaluate": lambda e, _: evaluation(1),
    "Finetune": lambda e, _: Finetune({2: "0"}),
    "Freeze": lambda e, _: Freeze("0"),
    "GradientAccumulation": lambda e, _: GradientAccumulation(2),
    "LearningRateFinder": lambda e, _: LearningRateFinder(),
    "LimitBatches": lambda e, _: LimitBatches(6),
    "MLflowLogger": lambda e, _: MLflowLogger("draws", every=1),
    "MixedPrecision": lambda e, _: MixedPrecision("bf16"),
    "Preemption": lambda e, place: Preemption(),
    "ProgressBar": lambda e, _: ProgressBar(),
    "SWA": lambda e, _: SWA(start=1),
    "Schedule": lambda e, _: Schedule(torch.optim.lr_scheduler.StepLR(optimizer(e), 5)),
    "TensorBoardLogger": lambda e, place: TensorBoardLogger(place / "events", every=1),
    "TerminateOnNan": lambda e, _: TerminateOnNan(),
    "TimeLimit": lambda e, _: TimeLimit(1000),
}


def drawn(attach: Attach | None, place: Path) -> list[tuple[float, float, float]]:
    """What a user's handler draws in each iteration, and after the run."""
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), 0.1), torch.nn.functional.mse_loss)
    data = TensorDataset(torch.randn(24, 2), torch.randn(24, 1))
    found: list[tuple[float, float, float]] = []

    def draw() -> None:
        found.append((random.random(), float(numpy.random.rand()), float(torch.rand(()))))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, draw)
    if attach is not None:
        state = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
        handler = attach(trainer, place)
        random.setstate(state[0])
        numpy.random.set_state(state[1])
        torch.set_rng_state(state[2])
        trainer.attach(handler)
    trainer.run(DataLoader(data, batch_size=4, shuffle=True), max_epochs=3)
    draw()
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_takes_nothing_of_the_users_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert drawn(HANDLERS[name], tmp_path) == drawn(None, tmp_path)
