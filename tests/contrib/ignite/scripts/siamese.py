import random

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from ignite.handlers.param_scheduler import LRScheduler
from ignite.metrics import RunningAverage
from ignite.utils import manual_seed


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 8), nn.Sigmoid()
        )

    def forward(self, *inputs):
        return tuple(self.net(each) for each in inputs)


class Triplets(Dataset):
    def __init__(self, size):
        self.images = torch.rand(size, 3, 16, 16)
        self.labels = [index % 4 for index in range(size)]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        label = self.labels[index]
        same = random.choice([i for i, each in enumerate(self.labels) if each == label])
        other = random.choice([i for i, each in enumerate(self.labels) if each != label])
        return self.images[index], self.images[same], self.images[other], label


def run(model, optimizer, train_loader, test_loader, lr_scheduler, epochs=3):
    criterion = nn.TripletMarginLoss()
    average_test_loss = 0

    def train_step(engine, batch):
        model.train()
        optimizer.zero_grad()
        loss = criterion(*model(*batch[:3]))
        loss.backward()
        optimizer.step()
        return loss

    def test_step(engine, batch):
        model.eval()
        return criterion(*model(*batch[:3])).item()

    trainer = Engine(train_step)
    evaluator = Engine(test_step)
    RunningAverage(output_transform=lambda x: x).attach(trainer, "loss")
    RunningAverage(output_transform=lambda x: x).attach(evaluator, "loss")
    ProgressBar().attach(trainer, metric_names=["loss"])
    ProgressBar().attach(evaluator, metric_names=["loss"])
    trainer.add_event_handler(Events.ITERATION_STARTED, lr_scheduler)

    @evaluator.on(Events.ITERATION_COMPLETED(every=1))
    def test_loss(engine):
        nonlocal average_test_loss
        average_test_loss += engine.state.output

    @trainer.on(Events.EPOCH_COMPLETED(every=1))
    def test(engine):
        nonlocal average_test_loss
        average_test_loss = 0
        evaluator.run(test_loader)
        print(f"{trainer.state.metrics['loss']:.5f} {average_test_loss / len(test_loader.dataset):.5f}")
        print(f"lr {optimizer.param_groups[0]['lr']:.4f}")

    trainer.run(train_loader, max_epochs=epochs)


manual_seed(1)
model = Siamese()
optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
scheduler = LRScheduler(StepLR(optimizer, step_size=5, gamma=0.7))
run(
    model,
    optimizer,
    DataLoader(Triplets(48), shuffle=True, batch_size=8),
    DataLoader(Triplets(16), batch_size=8),
    scheduler,
)
