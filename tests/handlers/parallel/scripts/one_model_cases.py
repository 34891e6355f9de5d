"""Several updates that share a model, each with its part of it; gives the weights that each rank ends with."""

import torch
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.handlers import DataParallel, GradientAccumulation


class ActorCritic(nn.Module):
    """A parameter of its own, a trunk, and two heads; what is spare is nobody's."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.shift = nn.Parameter(torch.randn(4))
        self.trunk, self.actor, self.critic = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 1)
        self.spare = nn.Linear(4, 1)

    def forward(self, x):
        x = self.trunk(x + self.shift).tanh()
        return self.actor(x).logsumexp(1).mean(), self.critic(x).square().mean() + 0 * self.spare(x).sum()

    def parts(self):
        """Of the two updates."""
        return [self.shift, *self.trunk.parameters(), *self.actor.parameters()], list(self.critic.parameters())


def batches():
    return list(torch.randn(7, 2, 3, 4, generator=torch.Generator().manual_seed(1)))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def weights(model):
    return [each.tolist() for each in model.parameters()]


def taking_turns(window=1, late=False, **options):
    model = ActorCritic(seed=dist.rank())

    def step(engine, batch):
        for place, update in enumerate((actor, critic)):
            with update.forward():
                loss = model(batch[dist.rank()])[place]
            update.backward(loss)

    engine = Engine(step)
    updates = []
    for place, name in enumerate(("actor", "critic")):
        own = set(map(id, model.parts()[place]))

        def make(parameters, own=own):
            return sgd([each for each in parameters if id(each) in own])

        updates.append(Update(engine, model, make if late else sgd(model.parts()[place]), name=name))
    actor, critic = updates
    engine.attach(DataParallel(deal=False, **options), GradientAccumulation(window))
    engine.run(batches(), max_epochs=2)
    return weights(model)


def by_turns():
    return taking_turns()


def in_windows():
    return taking_turns(window=3)


def made_late():
    return taking_turns(late=True)


def finding_unused():
    return taking_turns(find_unused_parameters=True)


CASES = [by_turns, in_windows, made_late, finding_unused]
