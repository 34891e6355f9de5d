"""A process that may take only so much memory more, and a model whose activations want it: prints what was found."""

import json
import logging
import resource
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.engine import Events, supervised_trainer
from leyden.handlers.searching import BatchSizeFinder, out_of_memory

MEGABYTES = 600
WIDTH = 250_000  # floats: each activation of a sample takes 1 MB


class Wide(nn.Module):
    """Keeps 6 activations for each sample."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        for _ in range(6):
            x = torch.sin(x * self.scale)
        return x.mean(dim=1, keepdim=True)


def main(mode):
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Wide()
    trainer = supervised_trainer(model, torch.optim.AdamW(model.parameters()), nn.functional.mse_loss)
    data = DataLoader(TensorDataset(torch.randn(500, 1), torch.randn(500, 1)), batch_size=1, shuffle=True)
    finder = BatchSizeFinder(mode=mode, steps=2)
    trainer.attach(finder)
    before = [tensor.clone() for tensor in (*model.parameters(), torch.get_rng_state())]
    seen = []

    def look():
        after = (*model.parameters(), torch.get_rng_state())
        held = len(trainer.updates["default"].optimizer.state)
        seen.append(all(map(torch.equal, before, after)) and held == 0)

    trainer.add_event_handler(Events.STARTED, look)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(len(trainer.state.batch[0])))
    errors = []
    recognise = out_of_memory.is_out_of_memory

    def note(error):
        errors.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return recognise(error)

    sys.modules[BatchSizeFinder.__module__].is_out_of_memory = note
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEGABYTES * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    trainer.run(data, max_iters=1)
    print(json.dumps({"size": finder.size, "seen": seen, "errors": errors}))


if __name__ == "__main__":
    main(sys.argv[1])
