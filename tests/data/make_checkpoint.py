"""Writes `checkpoint-schema-N` of the present schema N beside this script, which the tests read for ever after.

To be run once, `python tests/data/make_checkpoint.py`, when the layout of checkpoints has changed and its number with
it; the folders of earlier schemas stay as they are. What came later in the run that wrote it is written down, too: a
resume has to lead to the same.
"""

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from leyden.engine import Events, supervised_trainer
from leyden.handlers import EMA, Checkpoint, ClipGradients, EarlyStopping, GradientAccumulation, Schedule
from leyden.handlers.checkpoint import load_weights
from leyden.handlers.checkpoint.files.manifest import SCHEMA

HERE = Path(__file__).parent
SAVED_AT = 11
LAST = 21


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2))


def train(checkpoint, max_iters):
    """A run of 7 batches an epoch with handlers that have a state; gives the model, the losses and the trainer."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer = supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    trainer.declare_metrics("loss")
    losses = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine):
        losses.append(engine.state.output.item())

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure(engine):
        engine.state.metrics["loss"] = sum(losses[-7:]) / 7

    trainer.attach(
        GradientAccumulation(2),
        ClipGradients(norm=1.0),
        Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)),
        EMA(0.5),
        EarlyStopping("loss", mode="min", patience=100),
        checkpoint,
    )
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(6, 4, generator=generator), torch.randint(0, 2, (6,), generator=generator)) for _ in range(7)]
    trainer.run(data, max_iters=max_iters)
    return model, losses, trainer


def main():
    folder = HERE / f"checkpoint-schema-{SCHEMA}"
    if folder.exists():
        raise SystemExit(f"{folder} is there already; each schema's checkpoint is written once")
    kept = HERE / "being-made"
    saving = Checkpoint(kept, event=Events.ITERATION_COMPLETED(once=SAVED_AT), keep=None)
    _, losses, trainer = train(saving, LAST)
    expected = {
        "losses": losses[SAVED_AT:],
        "lr": trainer.updates["default"].optimizer.param_groups[0]["lr"],
        "step": trainer.state.step,
    }
    (path,) = kept.glob(f"*-iteration={SAVED_AT:08d}")
    path.rename(folder)
    shutil.rmtree(kept)
    load_weights(folder, model := network())
    expected["weights"] = {name: value.tolist() for name, value in model.state_dict().items()}
    (HERE / f"checkpoint-schema-{SCHEMA}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
