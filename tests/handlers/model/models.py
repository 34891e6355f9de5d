"""Small models with the parts that handlers of models look for: blocks, batch norms, dropout, convolutions."""

import torch
from torch import nn


def same_each_time(make):
    """The function's result with the same random numbers each time, those of the test untouched."""

    def made(*arguments, **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make(*arguments, **options)

    return made


class Block(nn.Module):
    def __init__(self, width=8, dropout=0.0, norm=nn.Identity):
        super().__init__()
        self.widen = nn.Linear(width, 2 * width)
        self.norm = norm(2 * width) if norm is not nn.Identity else nn.Identity()
        self.narrow = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(self.narrow(torch.relu(self.norm(self.widen(x)))))


class Deep(nn.Module):
    """(N, 6) to (N, 2) through `depth` blocks."""

    def __init__(self, depth=4, **options):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList([Block(**options) for _ in range(depth)])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


deep = same_each_time(Deep)


@same_each_time
def pretrained():
    """A backbone of two layers with a batch norm each, and a head: (N, 6) to (N, 2)."""
    return nn.Sequential(
        *[nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh()) for _ in range(2)], nn.Linear(6, 2)
    )


class Staged(nn.Module):
    """The same with names."""

    def __init__(self):
        super().__init__()
        parts = pretrained()
        self.backbone = nn.ModuleDict({"layer1": parts[0], "layer2": parts[1]})
        self.head = parts[2]

    def forward(self, x):
        return self.head(self.backbone["layer2"](self.backbone["layer1"](x)))


staged = same_each_time(Staged)


@same_each_time
def convolutional():
    """(N, 3, 8, 8) to (N, 2)."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2)
    )


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]


def tensors(model):
    """Parameters and buffers, copied."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def equal_tensors(model, other):
    """All parameters and buffers are the same to the bit."""
    other = other if isinstance(other, dict) else other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in model.state_dict().items())
