"""Runs over several ranks that stop in mid-evaluation: `evaluation_ranks.py NPROC DIRECTORY SCENARIO...`."""

import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from scenarios import main

from leyden import distributed as dist
from leyden.engine import Engine, Events, Order, supervised_trainer
from leyden.handlers import DataParallel, EarlyStopping, Evaluate, GradientAccumulation
from leyden.handlers.checkpoint import Checkpoint
from leyden.metrics import Mean

EVALUATED = 61  # batches, so that the shares of ranks are uneven


def batches(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(3, 4, generator=generator), torch.randint(0, 2, (3,), generator=generator)) for _ in range(count)
    ]


def run(*handlers, interrupt=None, pause=0.0):
    """`interrupt`: the evaluation and the batch in which the last rank alone asks for a stop."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 2))
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss())
    losses, seen, evaluations = [], [], []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output.item()))

    def evaluate(engine, batch):
        time.sleep(pause)
        with torch.no_grad():
            return model(batch[0]).mean() + torch.rand(())

    evaluator = Engine(evaluate, training=False)
    Mean().attach(evaluator, "mean")

    @evaluator.on(Events.ITERATION_COMPLETED)
    def look(engine):
        if engine.state.iteration == 1:
            evaluations.append(1)
        seen.append([trainer.state.epoch, engine.state.iteration, engine.state.output.item()])
        if dist.rank() == dist.world_size() - 1 and (len(evaluations), engine.state.iteration) == interrupt:
            trainer.interrupt()

    orders = []
    for order in (Order.METRICS, Order.SAVERS):
        trainer.add_event_handler(
            Events.EPOCH_COMPLETED, lambda order=order: orders.append([order.name, torch.rand(()).item()]), order=order
        )
    trainer.attach(
        DataParallel(deal="batches"),
        GradientAccumulation(3, tail="carry"),
        Evaluate(evaluator, batches(EVALUATED, 2), prefix="val/"),
        EarlyStopping("val/mean", mode="max", patience=9),
        *handlers,
    )
    trainer.state.seen = seen
    torch.manual_seed(100 + dist.rank())
    trainer.run(batches(8, 1), max_epochs=3)
    return {
        "losses": losses,
        "seen": seen,
        "orders": orders,
        "weights": [value for parameter in model.parameters() for value in parameter.reshape(-1).tolist()],
        "mean": trainer.state.metrics.get("val/mean"),
        "iteration": trainer.state.iteration,
        "evaluated": evaluator.state.iteration,
    }


def whole(base):
    return run()


def stopped(base):
    return run(Checkpoint(base / "stopped", event=Events.COMPLETED), interrupt=(2, 4), pause=0.002)


def resumed(base):
    there = base / f"after of {dist.world_size()}"
    return run(Checkpoint(there, event=Events.COMPLETED, resume=base / "stopped"))


if __name__ == "__main__":
    main(globals())
