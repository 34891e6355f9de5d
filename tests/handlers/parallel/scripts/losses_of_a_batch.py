"""Two ranks go backward from several losses of one forward pass; prints the weights beside those of one process."""

import json

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.handlers import DataParallel, GradientAccumulation, MixedPrecision


class ActorCritic(nn.Module):
    """Two heads on one trunk, none of which the loss of the other reaches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.actor, self.critic = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, x):
        x = self.trunk(x).tanh()
        return self.actor(x), self.critic(x)


def batches():
    return list(torch.randn(7, 2, 3, 4, generator=torch.Generator().manual_seed(1)))


def losses_of(outputs):
    actor, critic = outputs
    return actor.logsumexp(1).mean(), critic.square().mean()


def apart(update, model, batch):
    with update.forward():
        first, second = losses_of(model(batch))
    update.accumulate(first, retain_graph=True)
    update.accumulate(second)
    update.close()


def last_by_backward(update, model, batch):
    """The last pass reaches everything, and is known to be the last."""
    with update.forward():
        first, second = losses_of(model(batch))
    update.accumulate(first, retain_graph=True)
    update.accumulate(second - first, retain_graph=True)
    update.backward(first)


def from_two_forward_passes(update, model, batch):
    with update.forward():
        first, second = losses_of(model(batch))
        both = first + second
    with update.forward():
        again = sum(losses_of(model(batch)))
    update.accumulate(both / 2)
    update.accumulate(again / 2)
    update.close()


def train(step_of, window, precision=None, wrapped=False):
    module = ActorCritic()
    model = DistributedDataParallel(module) if wrapped else module
    engine = Engine(lambda engine, batch: step_of(update, model, batch[dist.rank()]))
    update = Update(engine, model, torch.optim.SGD(module.parameters(), lr=0.5))
    handlers = [GradientAccumulation(window)] if window > 1 else []
    if precision is not None:
        handlers.append(MixedPrecision(precision, init_scale=4.0))
    engine.attach(DataParallel(deal="nothing"), *handlers)
    engine.run(batches(), max_epochs=2)
    return weights(module)


def weights(model):
    return [float(each.detach().double().norm()) for each in model.parameters()]


def by_hand(window):
    model = ActorCritic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        data = batches()
        for start in range(0, len(data), window):
            part = data[start : start + window]
            optimizer.zero_grad()
            for batch in part:
                (sum(sum(losses_of(model(each))) for each in batch) / 2 / len(part)).backward()
            optimizer.step()
    return weights(model)


def whole_loss(update, model, batch):
    """Each of two backward passes from one forward pass reaches all parameters."""
    with update.forward():
        loss = sum(losses_of(model(batch)))
    update.accumulate(loss / 2, retain_graph=True)
    update.accumulate(loss / 2)
    update.close()


def cases():
    found = {}
    for window in (1, 3):
        for step_of in (apart, last_by_backward, from_two_forward_passes, whole_loss):
            found[f"{step_of.__name__}, window of {window}"] = [train(step_of, window), by_hand(window)]
        found[f"the user's own replicas, window of {window}"] = [
            train(whole_loss, window, wrapped=True),
            by_hand(window),
        ]
    found["scaled"] = [train(apart, 2, "fp16"), by_hand(2)]
    return found


if __name__ == "__main__":
    print(json.dumps(dist.launch(cases, 2)))
