"""Ranks that attach different handlers: `attached_alike.py NPROC NAME...` prints what each rank was told, and how soon.

The last line is JSON: {case: [[seconds, error or None, notes] of rank 0, of rank 1, ...]}.
"""

import json
import sys
import tempfile
import time
import warnings

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Events, supervised_evaluator, supervised_trainer
from leyden.handlers import (
    EMA,
    Checkpoint,
    ClipGradients,
    DataParallel,
    EarlyStopping,
    Evaluate,
    GradientAccumulation,
    LimitBatches,
    Logger,
    Overfit,
    ParamSchedule,
    ProgressBar,
    Schedule,
)
from leyden.handlers.training import Linear
from leyden.metrics import Accuracy, Loss, Mean

LOSS = nn.CrossEntropyLoss()


def data(batches=8):
    return [(torch.randn(4, 3), torch.randint(2, (4,))) for _ in range(batches)]


class Training:
    def __init__(self, lr=0.1, optimizer=torch.optim.SGD):
        self.model = nn.Linear(3, 2)
        self.optimizer = optimizer(self.model.parameters(), lr=lr)
        self.trainer = supervised_trainer(self.model, self.optimizer, LOSS)
        self.trainer.attach(DataParallel(deal="nothing"))

    def evaluator(self, **metrics):
        return supervised_evaluator(self.model, metrics=metrics)

    def attach_on(self, rank, *handlers):
        if dist.rank() == rank:
            self.trainer.attach(*handlers)

    def run(self, **limits):
        self.trainer.run(data(), **(limits or {"max_epochs": 2}))
        return self.trainer.state.iteration


def checkpoint_on_rank_0():
    training = Training()
    training.attach_on(0, Checkpoint(tempfile.mkdtemp()))
    training.run()


def evaluate_on_rank_0():
    training = Training()
    training.attach_on(0, Evaluate(training.evaluator(accuracy=Accuracy()), data(), prefix="val/"))
    training.run()


def early_stopping_on_rank_1():
    training = Training()
    training.trainer.attach(Evaluate(training.evaluator(accuracy=Accuracy()), data(), prefix="val/"))
    training.attach_on(1, EarlyStopping("val/accuracy", mode="max"))
    training.run()


def metric_on_rank_1():
    training = Training()
    if dist.rank() == 1:
        Mean(lambda loss: loss).attach(training.trainer, "mean_loss")
    training.run()


def metrics_of_the_evaluators_differ():
    training = Training()
    metrics = {"accuracy": Accuracy()} | ({"loss": Loss(LOSS)} if dist.rank() == 0 else {})
    training.trainer.attach(Evaluate(training.evaluator(**metrics), data(), prefix="val/"))
    training.run()


def metrics_of_evaluators_run_by_hand_differ():
    training = Training()
    evaluator = training.evaluator(accuracy=Accuracy(), **({"loss": Loss(LOSS)} if dist.rank() == 0 else {}))
    evaluator.run(data())


def other_windows():
    training = Training()
    training.trainer.attach(GradientAccumulation(2 if dist.rank() == 0 else 4))
    training.run()


def other_norms():
    training = Training()
    training.trainer.attach(ClipGradients(norm=1.0 + dist.rank()))
    training.run()


def other_learning_rates():
    Training(lr=0.1 + 0.1 * dist.rank()).run()


def other_optimizers():
    Training(optimizer=torch.optim.SGD if dist.rank() == 0 else torch.optim.Adam).run()


def other_schedulers():
    training = Training()
    training.trainer.attach(Schedule(torch.optim.lr_scheduler.StepLR(training.optimizer, 3 + dist.rank())))
    training.run()


def other_shapes():
    training = Training()
    training.trainer.attach(ParamSchedule("lr", Linear(0.1 + 0.1 * dist.rank(), 0.0, 9)))
    training.run()


def other_limits():
    Training().run(**({"max_epochs": 2} if dist.rank() == 0 else {"max_iters": 9}))


def other_lengths_of_epochs():
    Training().run(max_epochs=2, epoch_length=3 + dist.rank())


def other_numbers_of_batches():
    training = Training()
    training.trainer.attach(LimitBatches(2 + dist.rank()))
    training.run()


def other_batches_again_and_again():
    training = Training()
    training.trainer.attach(Overfit(1 + dist.rank()))
    training.run()


def ema_on_rank_1():
    training = Training()
    training.attach_on(1, EMA(0.9))
    training.run()


def the_last_rank_differs():
    training = Training()
    training.attach_on(dist.world_size() - 1, EMA(0.9))
    training.run()


def alike_after_all():
    """The second run is compared anew, and goes well."""
    training = Training()
    training.attach_on(1, accumulation := GradientAccumulation(2))
    try:
        training.run()
    except ValueError:
        training.attach_on(0, accumulation)
        return training.run()


class OneRankLogger(Logger):
    def open(self, engine):
        return

    def write(self, values, step):
        return


class PerRank:
    """A user's own, which says nothing of ranks."""

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: None)


def may_differ():
    """What prints, writes, or is one rank's own business; settings and data that may differ."""
    training = Training()
    training.attach_on(0, ProgressBar(), PerRank())
    if dist.rank() == 1:
        training.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: None)
    shared = dist.broadcast_object(tempfile.mkdtemp())
    training.trainer.attach(LimitBatches(3), Checkpoint(f"{shared}/{dist.rank()}", asynchronous=False))
    evaluator = training.evaluator(accuracy=Accuracy())
    evaluator.attach(LimitBatches(2 + dist.rank()))
    training.trainer.attach(Evaluate(evaluator, data(3 + dist.rank()), prefix="val/"))
    return training.run()


def other_order():
    training = Training()
    handlers = [GradientAccumulation(2), ClipGradients(norm=1.0), EMA(0.9)]
    training.trainer.attach(*(handlers if dist.rank() == 0 else reversed(handlers)))
    return training.run()


class Names:
    """A handler with a setting that has no order."""

    same_on_ranks = ("names",)

    def __init__(self, names):
        self.names = names

    def attach(self, engine):
        pass


def other_order_of_a_set():
    """As sets of text have it in two processes."""
    training = Training()
    names = [0, 8]
    training.trainer.attach(Names(set(names if dist.rank() == 0 else reversed(names))))
    return training.run()


def an_engine_of_one_rank():
    """Rank 0 alone runs an engine with nothing on it that communicates."""
    training = Training()
    if dist.rank() == 0:
        alone = Engine(lambda engine, batch: batch)
        alone.attach(ProgressBar())
        alone.run(range(3), max_epochs=2)
    return training.run()


def independent():
    """Each rank trains a model of its own."""
    model = nn.Linear(3, 2)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), LOSS)
    trainer.updates["default"].independent = True
    trainer.attach(GradientAccumulation(1 + dist.rank()))
    if dist.rank() == 0:
        trainer.attach(EMA(0.9))
    trainer.run(data(4 + 4 * dist.rank()))
    return 16


def play(names):
    warnings.simplefilter("ignore")
    found = {}
    for name in names:
        dist.barrier()
        started = time.monotonic()
        error, notes, value = None, [], None
        try:
            value = globals()[name]()
        except Exception as caught:
            error, notes = f"{type(caught).__name__}: {caught}", getattr(caught, "__notes__", [])
        found[name] = [time.monotonic() - started, error, notes, value]
    return found


if __name__ == "__main__":
    names = sys.argv[2:]
    by_rank = dist.launch(play, int(sys.argv[1]), args=(names,), backend="gloo", timeout=60)
    print(json.dumps({name: [found[name] for found in by_rank] for name in names}))
