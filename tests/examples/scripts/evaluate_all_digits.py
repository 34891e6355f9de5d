"""Evaluates a fixed classifier on all 1,797 digits, dealt to ranks; rank 0 writes the metrics and the predictions."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Events, supervised_evaluator
from leyden.handlers import DataParallel
from leyden.metrics import Accuracy, ConfusionMatrix, Loss, MeanSquaredError, Precision, Recall


def make_metrics():
    precision, recall = Precision(average="macro"), Recall(average="macro")
    return {
        "accuracy": Accuracy(),
        "error": 1 - Accuracy(),
        "loss": Loss(nn.functional.cross_entropy),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "confusion": ConfusionMatrix(10),
        "mse": MeanSquaredError(lambda output: (output[0].amax(1), output[1].float())),
    }


def main(file):
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    model = nn.Linear(64, 10)
    evaluator = supervised_evaluator(model, metrics=make_metrics())
    evaluator.attach(DataParallel())
    predictions, targets = [], []

    @evaluator.on(Events.ITERATION_COMPLETED)
    def keep(engine):
        predictions.append(engine.state.output[0])
        targets.append(engine.state.output[1])

    state = evaluator.run(DataLoader(TensorDataset(images, torch.tensor(digits.target)), batch_size=50))
    seen = dist.all_gather(sum(map(len, targets)))
    gathered = dist.all_gather(torch.cat(predictions)), dist.all_gather(torch.cat(targets))
    if dist.rank() == 0:
        torch.save({"metrics": dict(state.metrics), "seen": seen, "output": gathered}, file)


if __name__ == "__main__":
    main(sys.argv[1])
