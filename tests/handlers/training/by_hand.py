"""The training loop as one writes it in plain PyTorch: what every handler of the step is held against, bit for bit."""

from contextlib import nullcontext

import torch
from torch import nn

from leyden.engine import supervised_trainer

loss_fn = nn.MSELoss()


def net():
    """The same small model each time."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    torch.set_rng_state(generator_state)
    return model


def sgd(model, lr=0.1, momentum=0.9):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def batches(number=10, size=4):
    """The same (input, target) pairs each time; the gradients they give have norms between about 0.5 and 3."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 6, generator=generator), 2 * torch.randn(size, 2, generator=generator))
        for _ in range(number)
    ]


def train_by_hand(
    model, optimizer, data, epochs=3, window=1, dtype=None, clip=None, after_step=None, after_epoch=None
):  # fmt: skip
    """Trains; gives the iterations after which the optimizer stepped. `clip(parameters)` runs just before each step."""
    steps = []
    for epoch in range(epochs):
        for i, (x, y) in enumerate(data):
            size = min(window, len(data) - i // window * window)
            with nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype):
                loss = loss_fn(model(x), y)
            (loss if size == 1 else loss / size).backward()
            if (i + 1) % window == 0 or i + 1 == len(data):
                if clip is not None:
                    clip(model.parameters())
                optimizer.step()
                optimizer.zero_grad()
                if after_step is not None:
                    after_step()
                steps.append(epoch * len(data) + i + 1)
        if after_epoch is not None:
            after_epoch()
    return steps


def train_with(*handlers, model, optimizer, data, epochs=3):
    """Trains by an engine with the handlers; gives the engine."""
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(*handlers)
    trainer.run(data, max_epochs=epochs)
    return trainer


def equal(model, other):
    """All parameters are the same to the bit."""
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
