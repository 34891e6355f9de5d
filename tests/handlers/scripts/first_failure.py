"""One rank of two fails: `first_failure.py NAME` plays the case, and prints what each rank was told, and how soon.

The last line is JSON: [[seconds, error, notes] of rank 0, of rank 1].
"""

import json
import sys
import time
import warnings

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers import DataParallel

TIMEOUT = 8.0
LONG = 60.0


def make():
    model = nn.Linear(3, 2)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss())
    trainer.attach(DataParallel(deal="nothing"))
    return trainer


def data(batches=6):
    return [(torch.randn(4, 3), torch.randint(2, (4,))) for _ in range(batches)]


def in_a_step():
    trainer = make()

    @trainer.on(Events.ITERATION_STARTED(once=3))
    def fail():
        if dist.rank() == 1:
            raise ValueError("a bad batch")

    trainer.run(data())


def before_the_run():
    make().run(data() if dist.rank() == 0 else [], max_epochs=2)


def a_batch_given_up():
    trainer = make()

    @trainer.on(Events.ITERATION_STARTED(once=3))
    def give_up():
        if dist.rank() == 1:
            trainer.updates["default"].abandon()
            trainer.terminate()  # of its own accord it would run out of batches

    trainer.run(data(300))


def everywhere():
    trainer = make()

    @trainer.on(Events.ITERATION_STARTED(once=3))
    def fail():
        raise ValueError("a bad batch")

    trainer.run(data())


def again():
    """A failure that all have survived is not told of the next."""
    try:
        everywhere()
    except ValueError:
        in_a_step()


def play(name):
    warnings.simplefilter("ignore")
    dist.barrier()
    started = time.monotonic()
    error, notes = None, []
    try:
        globals()[name]()
    except Exception as caught:
        error, notes = f"{type(caught).__name__}: {caught}", getattr(caught, "__notes__", [])
    seconds = time.monotonic() - started
    time.sleep(max(0.0, TIMEOUT + 3 - seconds))  # the failed rank lives on: nobody is told by a broken connection
    return [seconds, error, notes]


if __name__ == "__main__":
    print(
        json.dumps(
            dist.launch(
                play,
                2,
                args=(sys.argv[1],),
                backend="gloo",
                timeout=LONG if sys.argv[1] == "before_the_run" else TIMEOUT,
            )
        )
    )
