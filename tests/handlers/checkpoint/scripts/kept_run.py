"""A run that saves after each iteration and writes its losses down: `kept_run.py DIRECTORY LOG MAX_EPOCHS [resume]`.

The log has one line for each iteration: its number and the exact loss.
"""

import sys

import torch
from torch import nn

from leyden.engine import Events, supervised_trainer
from leyden.handlers.checkpoint import Checkpoint


def main(directory, log, max_epochs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.2), nn.Linear(64, 2))
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss())
    trainer.attach(Checkpoint(directory, event=Events.ITERATION_COMPLETED(every=1), keep=2, resume="auto"))
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(8, 4, generator=generator), torch.randint(0, 2, (8,), generator=generator)) for _ in range(10)]
    with open(log, "a") as file:

        @trainer.on(Events.ITERATION_COMPLETED)
        def note(engine):
            file.write(f"{engine.state.iteration} {engine.state.output.item().hex()}\n")
            file.flush()

        trainer.run(data, max_epochs=max_epochs)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
