"""A training with everything in it that a step changes, and all of its state in one tree, to be compared."""

import random

import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.engine import supervised_trainer

loss_fn = nn.MSELoss()
SETTLED_WHEN_A_RUN_STARTS = ("uniform", "gathers_shards", "_alone", "_begun_at")


class Net(nn.Module):
    """Dropout draws random numbers, batch norm has buffers, and a buffer that no state_dict holds counts the passes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)
        )  # fmt: skip
        self.register_buffer("passes", torch.zeros(()), persistent=False)
        self.last_mean = None

    def forward(self, x):
        self.passes += 1
        y = self.layers(x)
        self.last_mean = y.detach().mean()
        return y


def net():
    torch.manual_seed(0)
    return Net()


def plain_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


def adamw(model, lr=1e-3):
    return torch.optim.AdamW(model.parameters(), lr=lr)


def samples(number=40):
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(number, 6, generator=generator), torch.randn(number, 2, generator=generator))


def shuffled(number=40, size=4, **options):
    return DataLoader(samples(number), batch_size=size, shuffle=True, **options)


def batches(number=10, size=4):
    x, y = samples(number * size).tensors
    return list(zip(x.split(size), y.split(size), strict=True))


def trainer_of(model, optimizer, *handlers):
    trainer = supervised_trainer(model, optimizer, loss_fn)
    trainer.attach(*handlers)
    return trainer


def seed_all():
    torch.manual_seed(5)
    random.seed(5)
    numpy.random.seed(5)


def everything(trainer):
    """All that a step may change, as a tree of copies."""
    return {
        "updates": {name: _of_update(update) for name, update in trainer.updates.items()},
        "engine": _copy({key: value for key, value in trainer.state_dict().items() if not key.startswith("handler")}),
        "handlers": _copy({name: vars(handler) for name, handler in trainer.handlers.items()}),
        "state": _copy(
            {**vars(trainer.state), "metrics": dict(trainer.state.metrics), "dataloader": None, "times": None}
        ),
        "ends": (trainer.last_iteration, trainer.run_end),
        "random": _copy((random.getstate(), numpy.random.get_state(), torch.get_rng_state())),
    }


def _of_update(update):
    modules = [module for root in update.modules.values() for module in root.modules()]
    scaler = update.slots.scaler
    return _copy(
        {
            "parameters": [p for module in modules for p in module.parameters(recurse=False)],
            "gradients": [p.grad for module in modules for p in module.parameters(recurse=False)],
            "buffers": [b for module in modules for b in module.buffers(recurse=False)],
            "modes": [module.training for module in modules],
            "attributes": [getattr(module, "last_mean", None) for module in modules],
            "optimizer": update.optimizer.state_dict(),
            "holds": [len(update.optimizer.state)],
            "counters": {key: value for key, value in vars(update).items() if key not in SETTLED_WHEN_A_RUN_STARTS},
            "scaler": None if scaler is None else {**scaler.state_dict(), **vars(scaler._scaler)},
        }
    )


def _copy(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value.copy() if isinstance(value, numpy.ndarray) else value


def same(one, other):
    """The two trees are equal, tensors to the bit; raises AssertionError with the place where they are not."""
    differences = list(_differences(one, other, ""))
    assert not differences, differences
    return True


def _differences(one, other, place):
    if isinstance(one, dict):
        if one.keys() != other.keys():
            yield f"{place}: {one.keys() ^ other.keys()}"
            return
        for key in one:
            yield from _differences(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{place}: {len(one)} and {len(other)}"
            return
        for number, (mine, its) in enumerate(zip(one, other, strict=True)):
            yield from _differences(mine, its, f"{place}/{number}")
    elif isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or one.dtype != other.dtype or not torch.equal(one, other):
            yield place
    elif isinstance(one, numpy.ndarray):
        if not numpy.array_equal(one, other):
            yield place
    elif isinstance(one, int | float | str | None) and one != other:
        yield f"{place}: {one!r} and {other!r}"
