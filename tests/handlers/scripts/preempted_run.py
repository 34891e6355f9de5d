"""A run that takes a while and can be preempted: `preempted_run.py DIRECTORY [key=value ...]`.

Each rank writes the number of each iteration, and the exact loss, into DIRECTORY/log-RANK. What is given as key=value:
steps (iterations at most), pause (seconds in each), workers (of the loader), signals (names with commas), code, exits,
requeue, ranks (whether to use DataParallel). The line "after the run" is printed where run() returns.
"""

import logging
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Events, supervised_trainer
from leyden.handlers import Checkpoint, DataParallel
from leyden.handlers.preemption import Preemption


def main(directory, steps="400", pause="0.02", workers="0", signals="SIGTERM,SIGUSR1,SIGINT", **settings):
    logging.basicConfig(level=logging.WARNING)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.Linear(16, 2))
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss())
    preemption = Preemption(
        signals.split(","),
        exit_code=int(settings["code"]) if "code" in settings else None,
        exits=settings.get("exits") != "no",
        requeue=settings.get("requeue"),
    )
    trainer.attach(DataParallel(), preemption, Checkpoint(directory / "kept", every=1000, resume="auto"))
    generator = torch.Generator().manual_seed(1)
    count = 2000
    data = TensorDataset(torch.randn(count, 4, generator=generator), torch.randint(0, 2, (count,), generator=generator))
    loader = DataLoader(data, batch_size=4, num_workers=int(workers))
    with (directory / f"log-{dist.rank()}").open("a") as file:

        @trainer.on(Events.ITERATION_COMPLETED)
        def note(engine):
            file.write(f"{engine.state.iteration} {engine.state.output.item().hex()}\n")
            file.flush()
            time.sleep(float(pause))

        trainer.run(loader, max_iters=int(steps))
    received = preemption.received
    print("after the run", received.name if received else None, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), **dict(argument.split("=") for argument in sys.argv[2:]))
