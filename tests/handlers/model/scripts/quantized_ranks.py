"""Replicas of a model with integer weights: a function that every rank runs."""

import torch
from torch import nn

from leyden import distributed as dist
from leyden.contrib.lora import LoRA
from leyden.engine import supervised_trainer
from leyden.handlers import DataParallel
from leyden.handlers.model.quantize import Quantize


def train():
    """The model's state after two epochs, begun from other weights on each rank."""
    torch.manual_seed(dist.rank())
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 2))
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.02), nn.MSELoss())
    trainer.attach(LoRA(), DataParallel(), Quantize("int8-weights"))
    generator = torch.Generator().manual_seed(1)
    data = torch.utils.data.TensorDataset(
        torch.randn(24, 32, generator=generator), torch.randn(24, 2, generator=generator)
    )
    trainer.run(torch.utils.data.DataLoader(data, batch_size=4), max_epochs=2)
    return model.state_dict()
