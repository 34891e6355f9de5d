"""The task that every pair of handlers is tried on: a small model with something for each of them to work on."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 3
SAMPLES = 38  # in batches of 4: nine full ones and one of 2
BATCH_SIZE = 4
LEARNING_RATE = 0.05


class Block(nn.Module):
    """One of the repeated blocks."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.dropout(torch.tanh(self.linear(x)))


class Net(nn.Module):
    """Images (N, 2, T, 4) and a hidden state (N, 16) or None to predictions (N, 2) and the next hidden state."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(), Block())
        self.recurrent = nn.Linear(16, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, x, hidden=None):
        features = torch.relu(self.norm(self.stem(x))).mean(dim=(2, 3))
        features = self.blocks(features if hidden is None else features + hidden)
        return self.head(features), torch.tanh(self.recurrent(features))


def net():
    """The same model each time; the generator of random numbers is as before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9, weight_decay=0.01)


def samples(seed=1, number=SAMPLES):
    """Pairs of (2, 4, 4) and (2, 4); time is the dimension before the last one of the first, the last of the second."""
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(
        torch.randn(number, 2, 4, 4, generator=generator), 2 * torch.randn(number, 2, 4, generator=generator)
    )


def loader(batch_size=BATCH_SIZE, seed=1, number=SAMPLES):
    return DataLoader(samples(seed, number), batch_size=batch_size)


def inputs_of(batch):
    """What a batch brings: one pair, or pairs by name of several loaders, which are trained on together."""
    if isinstance(batch, dict):
        return tuple(map(torch.cat, zip(*batch.values(), strict=True)))
    return tuple(batch)


def weight_of(batch):
    """The samples in a batch."""
    return len(inputs_of(batch)[0])


def loss_of(prediction, target):
    return nn.functional.mse_loss(prediction, target.mean(dim=2))
