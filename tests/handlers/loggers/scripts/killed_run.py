"""Trains, with points of each iteration and epoch logged; dies by SIGKILL where it is told to, and is started again.

killed_run.py FIRST STORE KILL_AT: FIRST is "checkpoint" or "logger", whichever is attached first; STORE the uri for
MLflow; KILL_AT the iteration after whose checkpoint it dies, 0 for none.
"""

import os
import signal
import sys
import time

import torch

from leyden.engine import Events, supervised_trainer
from leyden.handlers import Checkpoint
from leyden.handlers.loggers import MLflowLogger, TensorBoardLogger

first, store, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), 0.1), torch.nn.functional.mse_loss)
checkpoint = Checkpoint("checkpoints", resume="auto", asynchronous=False)
loggers = [MLflowLogger("killed", tracking_uri=store, every=1), TensorBoardLogger("events", every=1)]


@trainer.on(Events.EPOCH_COMPLETED)
def evaluate() -> None:
    trainer.state.metrics["val/loss"] = float(trainer.state.epoch)


trainer.attach(*([checkpoint, *loggers] if first == "checkpoint" else [*loggers, checkpoint]))


@trainer.on(Events.ITERATION_COMPLETED)
def train_at_a_pace() -> None:
    time.sleep(0.02)


@trainer.on(Events.EPOCH_COMPLETED)
def die_soon() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if trainer.state.iteration == kill_at:
        trainer.add_event_handler(Events.EPOCH_STARTED, die)  # nothing was sent yet of what was logged just before


@trainer.on(Events.ITERATION_COMPLETED)
def die_in_mid_epoch() -> None:
    if trainer.state.iteration == kill_at and kill_at % 4:
        time.sleep(1.7)  # what was logged after the checkpoint was sent
        os.kill(os.getpid(), signal.SIGKILL)


batch = torch.ones(4, 2), torch.ones(4, 1)

trainer.run([batch] * 4, max_epochs=4)
