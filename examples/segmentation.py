"""Segments discs, squares and triangles that overlap in noise: each pixel is given its class by a small U-Net.

    python examples/segmentation.py                                   one process
    torchrun --nproc-per-node 2 examples/segmentation.py              the same on two ranks
    tensorboard --logdir runs/segmentation/tensorboard                curves, and what is seen after each epoch

Samples are drawn when they are asked for, so nothing is downloaded. After each epoch a picture goes to MLflow and
TensorBoard: validation samples, under each its true classes, under these the predicted ones. Stop it at any time and
run it again: it goes on from its last checkpoint. Needs: pip install "leyden[mlflow,tensorboard]"
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from leyden import distributed as dist
from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    Checkpoint,
    DataParallel,
    Evaluate,
    MixedPrecision,
    MLflowLogger,
    ProgressBar,
    Schedule,
    TensorBoardLogger,
)
from leyden.metrics import ConfusionMatrix, Dice, IoU, Loss, MeanIoU, Metric, RunningAverage

CLASSES = ("background", "disc", "square", "triangle")
PALETTE = torch.tensor([[40, 40, 40], [230, 80, 70], [80, 190, 90], [70, 120, 230]]) / 255  # (classes, RGB)
SIZE = 32


class Shapes(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images (3, SIZE, SIZE) of 0 to 1 and their classes (SIZE, SIZE); a seed and an index always give the same."""

    def __init__(self, samples: int, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= index < self.samples:
            raise IndexError(index)
        random = np.random.default_rng([self.seed, index])
        image = np.empty((3, SIZE, SIZE), np.float32)
        image[:] = random.uniform(0, 0.5, (3, 1, 1))
        classes = np.zeros((SIZE, SIZE), np.int64)
        for _ in range(random.integers(1, 4)):
            shape = random.integers(1, len(CLASSES))
            inside = self.draw(shape, random)
            image[:, inside] = random.uniform(0.4, 1, (3, 1))  # any colour; it tells nothing
            classes[inside] = shape
        image += random.normal(0, 0.05, image.shape)
        return torch.from_numpy(image.clip(0, 1)), torch.from_numpy(classes)

    @staticmethod
    def draw(shape: int, random: np.random.Generator) -> np.ndarray:
        """The pixels (SIZE, SIZE) inside a shape somewhere, upright; as large whatever the shape."""
        (top, left), radius = random.uniform(0.15 * SIZE, 0.85 * SIZE, 2), random.uniform(0.14 * SIZE, 0.24 * SIZE)
        corners = {1: 64, 2: 4, 3: 3}[shape]
        sides = np.pi / 2 + np.arange(corners) * 2 * np.pi / corners  # where each looks
        y, x = np.mgrid[:SIZE, :SIZE]
        distances = np.cos(sides)[:, None, None] * (x - left) + np.sin(sides)[:, None, None] * (y - top)
        area_of_unit = corners * np.tan(np.pi / corners)
        return distances.max(0) <= radius * (np.pi / area_of_unit) ** 0.5


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """From images (N, 3, H, W) to scores (N, classes, H, W); H and W are multiples of 8.

    Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015; with fewer channels.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 24, 32, 48)) -> None:
        super().__init__()
        self.down = nn.ModuleList(block(*pair) for pair in pairwise((3, *widths)))
        pairs = list(pairwise(widths))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for here, below in reversed(pairs))
        self.up = nn.ModuleList(block(2 * here, here) for here, _ in reversed(pairs))
        self.classify = nn.Conv2d(widths[0], len(CLASSES), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x, passed = images, []
        for down in self.down:
            x = down(x if not passed else nn.functional.max_pool2d(x, 2))
            passed.append(x)
        for rise, up, beside in zip(self.rise, self.up, reversed(passed[:-1]), strict=True):
            x = up(torch.cat([rise(x), beside], dim=1))
        return self.classify(x)


def make_metrics(loss_fn: nn.Module) -> dict[str, Metric]:
    """All but the loss are of one confusion matrix, which is counted and reduced once."""
    confusion = ConfusionMatrix(len(CLASSES))
    iou = IoU(confusion)
    return {
        "mean_iou": MeanIoU(confusion),
        "dice": Dice(confusion, average="macro"),
        **{f"iou/{name}": iou[place] for place, name in enumerate(CLASSES)},
        "loss": Loss(loss_fn),
    }


def above_one_another(images: torch.Tensor, truth: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """Of each sample its image above its true above its predicted classes, in colours: (N, 3, 3 * H, W)."""
    palette = PALETTE.to(images.device)
    return torch.cat([images, *(palette[classes].movedim(-1, 1) for classes in (truth, predicted))], dim=-2)


def main(runs: Path, epochs: int, samples: int, batch_size: int) -> None:
    """Trains, and says what was reached and where it is."""
    torch.manual_seed(0)
    train_loader = DataLoader(Shapes(samples, seed=0), batch_size, shuffle=True)
    val_loader = DataLoader(Shapes(max(samples // 4, 1), seed=1), batch_size)

    model = UNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss_fn = nn.CrossEntropyLoss()

    trainer = supervised_trainer(model, optimizer, loss_fn)
    evaluator = supervised_evaluator(model, metrics=make_metrics(loss_fn))
    RunningAverage().attach(trainer, "loss")

    mlflow = MLflowLogger(experiment="segmentation", tracking_uri=f"sqlite:///{runs}/mlflow.db", every=10)
    tensorboard = TensorBoardLogger(runs / "tensorboard", every=10)
    checkpoint = Checkpoint(runs / "checkpoints", best="val/mean_iou", keep=2, resume="auto")
    trainer.attach(
        DataParallel(),  # one process: nothing; under torchrun: replicas, sharded data
        MixedPrecision(),
        Schedule(lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)),
        Evaluate(evaluator, val_loader, prefix="val/"),
        checkpoint,
        mlflow,
        tensorboard,
        ProgressBar(),
    )

    @evaluator.on(Events.ITERATION_COMPLETED(once=1))  # the first batch of each evaluation, as it was evaluated
    def show(engine: Engine) -> None:
        scores, truth = engine.state.output
        picture = above_one_another(engine.state.batch[0], truth, scores.argmax(1))
        for logger in (mlflow, tensorboard):
            logger.log_image("val/samples", picture, trainer.state.iteration)

    state = trainer.run(train_loader, max_epochs=epochs)

    if dist.rank() == 0:
        by_class = ", ".join(f"{name} {state.metrics[f'val/iou/{name}']:.4f}" for name in CLASSES)
        print(f"mean IoU        {state.metrics['val/mean_iou']:.4f} after epoch {state.epoch} ({by_class})")
        print(f"mean Dice       {state.metrics['val/dice']:.4f}")
        print(f"training time   {state.times['COMPLETED']:.1f} s on {dist.world_size()} process(es)")
        print(f"checkpoints     {runs / 'checkpoints'} (best: {checkpoint.best_path.name})")
        print(f"TensorBoard     {tensorboard.dashboard_command()}")
        print(f"MLflow          {mlflow.dashboard_command()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/segmentation"), help="folder for checkpoints and logs")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--samples", type=int, default=1000, help="images to train on; a quarter as many to validate")
    parser.add_argument("--batch-size", type=int, default=8, help="of each process")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.epochs, arguments.samples, arguments.batch_size)
