"""The same task on PyTorch Lightning's Trainer; what it does by default beside training is switched off."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _loops import Batch, Batches, Loop, Maker, loss_fn, model_and_optimizer, scheduler_of
from _measure import frames_of
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

PACKAGES = ("pytorch_lightning.", "lightning_fabric.", "lightning_utilities.")

for name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")


class Module(LightningModule):
    """The task, without anything that it need not have."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.optimizer = model_and_optimizer()

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        x, y = batch
        return loss_fn(self.model(x), y)

    def configure_optimizers(self) -> Any:
        return self.optimizer


class Logging(Module):
    """The same with one `self.log`."""

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        loss = super().training_step(batch, index)
        self.log("loss", loss)
        return loss


class Everything(Module):
    """The same with a value for the bar and the logger, and a scheduler for each step."""

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        loss = super().training_step(batch, index)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        scheduler = scheduler_of(self.optimizer)
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def trainer(folder: Path, **options: Any) -> Trainer:
    defaults = {f"enable_{what}": False for what in ("checkpointing", "progress_bar", "model_summary")} | {
        "logger": False
    }
    return Trainer(max_epochs=1, accelerator="cpu", devices=1, default_root_dir=folder, **(defaults | options))


def plain(folder: Path, module: type[Module] = Module) -> Loop:
    return _fit(trainer(folder), module())


def attached(folder: Path) -> Loop:
    everything = trainer(
        folder,
        logger=TensorBoardLogger(folder),
        log_every_n_steps=50,
        gradient_clip_val=1.0,
        enable_progress_bar=True,
        callbacks=[TQDMProgressBar(refresh_rate=100), LearningRateMonitor("step")],
    )
    return _fit(everything, Everything())


def _fit(trainer: Trainer, module: Module) -> Loop:
    def train(data: Iterable[Batch]) -> None:
        trainer.fit(module, data)

    return train


def frames(folder: Path) -> dict[str, int]:
    """Frames of Lightning above a training step and a callback."""
    seen = {}

    class Watched(Module):
        def training_step(self, batch: Batch, index: int) -> torch.Tensor:
            seen["process function"] = frames_of(PACKAGES)
            return super().training_step(batch, index)

    class Watch(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            seen["handler of an iteration"] = frames_of(PACKAGES)

    trainer(folder, callbacks=[Watch()]).fit(Watched(), Batches(1))
    return seen


LOOPS: dict[str, Maker] = {
    "Lightning": plain,
    "Lightning, one self.log": partial(plain, module=Logging),
    "Lightning, all attached": attached,
}
