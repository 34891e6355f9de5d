"""Classifies scikit-learn's handwritten digits: train, evaluate, stop early, checkpoint, log.

    python examples/digits.py                                   one process
    torchrun --nproc-per-node 2 examples/digits.py              the same on two ranks
    mlflow ui --backend-store-uri sqlite:///runs/mlflow.db      the dashboard

Stop it at any time and run it again: it goes on from its last checkpoint. Needs: pip install
"leyden[mlflow,tensorboard]" scikit-learn
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from leyden import distributed as dist
from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    Checkpoint,
    ClipGradients,
    DataParallel,
    EarlyStopping,
    Evaluate,
    GradientAccumulation,
    MixedPrecision,
    MLflowLogger,
    ProgressBar,
    Schedule,
    TensorBoardLogger,
)
from leyden.metrics import Accuracy, Loss, RunningAverage


class Net(nn.Module):
    """Two convolutions and a linear layer, for images of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * 4 * 4, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(images))


def main(runs: Path, epochs: int) -> None:
    """Trains, and says what was reached and where it is."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    samples = TensorDataset(images, torch.tensor(digits.target))
    train_set, test_set = random_split(samples, [1500, 297], torch.Generator().manual_seed(0))
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=64)

    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss_fn = nn.CrossEntropyLoss()

    trainer = supervised_trainer(model, optimizer, loss_fn)
    evaluator = supervised_evaluator(model, metrics={"accuracy": Accuracy(), "loss": Loss(loss_fn)})
    RunningAverage().attach(trainer, "loss")

    mlflow = MLflowLogger(experiment="digits", tracking_uri=f"sqlite:///{runs}/mlflow.db")
    checkpoint = Checkpoint(runs / "digits", best="val/accuracy", keep=3, resume="auto")
    trainer.attach(
        DataParallel(),  # one process: nothing; under torchrun: replicas, sharded data
        MixedPrecision(),
        GradientAccumulation(2),
        ClipGradients(norm=1.0),
        Schedule(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs), per="epoch"),
        Evaluate(evaluator, test_loader, prefix="val/"),
        EarlyStopping("val/accuracy", patience=10),
        checkpoint,
        mlflow,
        TensorBoardLogger(runs / "tensorboard"),
        ProgressBar(),
    )

    @trainer.on(Events.EPOCH_COMPLETED(every=5))  # a one-off handler is any function
    @dist.one_rank_only()
    def note(engine: Engine) -> None:
        metrics = engine.state.metrics
        print(f"epoch {engine.state.epoch}: accuracy {metrics['val/accuracy']:.4f}, loss {metrics['val/loss']:.4f}")

    state = trainer.run(train_loader, max_epochs=epochs)

    if dist.rank() == 0:
        print(f"test accuracy   {state.metrics['val/accuracy']:.4f} after epoch {state.epoch}")
        print(f"training time   {state.times['COMPLETED']:.1f} s on {dist.world_size()} process(es)")
        print(f"checkpoints     {runs / 'digits'} (best: {checkpoint.best_path.name})")
        print(f"TensorBoard     {runs / 'tensorboard'}")
        print(f"dashboard       {mlflow.dashboard_command()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for checkpoints and logs")
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    main(arguments.runs, arguments.epochs)
