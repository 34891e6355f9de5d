"""What several of the scripts share: scikit-learn's digits as loaders, and a small network."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, dropout=0.5):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, kernel_size=3)
        self.drop = nn.Dropout2d(dropout)
        self.dropout = dropout
        self.fc1 = nn.Linear(72, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        x = nn.functional.relu(nn.functional.max_pool2d(self.drop(self.conv(x)), 2))
        x = nn.functional.relu(self.fc1(x.flatten(1)))
        x = nn.functional.dropout(x, self.dropout, training=self.training)
        return nn.functional.log_softmax(self.fc2(x), dim=-1)


def loaders(train_batch_size=32, val_batch_size=100):
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    targets = torch.tensor(digits.target)
    train = DataLoader(TensorDataset(images[:640], targets[:640]), batch_size=train_batch_size, shuffle=True)
    val = DataLoader(TensorDataset(images[640:1040], targets[640:1040]), batch_size=val_batch_size)
    return train, val
