"""Runs stopped at each batch of an evaluation, and gone on with; each rank of a launch runs these."""

import numpy
import torch
from exact_data import make_loader
from torch import nn

from leyden.engine import Events, supervised_evaluator, supervised_trainer
from leyden.handlers import Checkpoint, DataParallel, Evaluate
from leyden.metrics import Accuracy


def run(folder, kind, stop_at=None, resume=None):
    """The accuracies of two epochs, and how many samples were evaluated here. `stop_at`: the batch of the first
    evaluation at which the run is asked to stop.
    """
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss())
    evaluator = supervised_evaluator(model, {"accuracy": Accuracy()})
    data, evaluated = (make_loader(kind, "numpy", 0, seed) for seed in (1, 2))
    trainer.attach(
        DataParallel(deal="batches"),
        Evaluate(evaluator, evaluated, prefix="val/"),
        Checkpoint(folder, event=Events.EPOCH_COMPLETED(every=1000), resume=resume),
    )
    accuracies, samples = [], []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: samples.append(len(engine.state.batch[1])))
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: accuracies.append(engine.state.metrics["val/accuracy"]), order=5
    )
    if stop_at is not None:
        evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=stop_at), trainer.interrupt)
    numpy.random.seed(3)
    torch.manual_seed(5)
    trainer.run(data, max_epochs=2)
    return accuracies, sum(samples)


def stopped_at_each(folder, kind, batches):
    """Of the run that never stops, and of each that did: what both of its parts told together."""
    told = [run(f"{folder}/whole", kind)]
    for batch in range(1, batches + 1):
        parts = [run(f"{folder}/{batch}", kind, batch), run(f"{folder}/{batch}", kind, resume="auto")]
        told.append(([*parts[0][0], *parts[1][0]], parts[0][1] + parts[1][1]))
    return told
