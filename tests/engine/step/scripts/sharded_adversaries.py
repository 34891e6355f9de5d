"""Two ranks train a generator and its critic, of which the user sharded both or one with fully_shard; prints the norms
of their weights beside those of one process.
"""

import json

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from leyden import distributed as dist
from leyden.engine import Engine, Update, UpdateEvents
from leyden.handlers import GradientAccumulation


def nets():
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, width)) for width in (4, 1)]


def batches():
    return list(torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(1)))


def losses_of(generator, critic, batch):
    """Each as a function, since the second is of what the first has stepped."""
    return (
        lambda: critic(generator(batch).detach()).mean() - critic(batch).mean() + critic(batch).square().mean(),
        lambda: -critic(generator(batch)).mean(),
    )


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.2)


def trained(sharded):
    """Two updates, of which the second's backward pass goes through the model of the first."""
    models = generator, critic = nets()
    for model in sharded(models):
        fully_shard(model[0])
        fully_shard(model)

    def step(engine, batch):
        for update, loss_of in zip((of_critic, of_generator), losses_of(generator, critic, batch), strict=True):
            with update.forward():
                loss = loss_of()
            update.backward(loss)

    engine = Engine(step)
    of_critic = Update(engine, critic, sgd(critic), name="critic")
    of_generator = Update(engine, generator, sgd(generator), name="generator")
    engine.attach(GradientAccumulation(2, update="critic"))
    for update in engine.updates.values():
        update.independent = True  # where it is whole, the step exchanges its gradients

    @engine.on(UpdateEvents.GRADIENTS_READY)
    def exchange(engine, update):
        for gradient in update.gradients():
            if not isinstance(gradient, DTensor):
                gradient.copy_(dist.all_reduce(gradient, "mean"))

    engine.run([batch[dist.rank()] for batch in batches()], max_epochs=2)
    return [norm_of(model) for model in models]


def norm_of(model):
    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return [float(each.detach().double().norm()) for each in whole]


def by_hand():
    """In one process; windows of the critic are of 2 batches, and the last of an epoch of 1."""
    models = generator, critic = nets()
    turns = [(critic, sgd(critic), (2, 2, 2, 2, 1)), (generator, sgd(generator), (1,) * 5)]
    for _ in range(2):
        for number, batch in enumerate(batches()):
            for turn, (model, optimizer, windows) in enumerate(turns):
                loss = sum(losses_of(generator, critic, each)[turn]() for each in batch) / 2 / windows[number]
                loss.backward(inputs=list(model.parameters()))
                if windows[number] == 1 or number % 2:
                    optimizer.step()
                    optimizer.zero_grad()
    return [norm_of(model) for model in models]


def cases():
    return {
        "both": [trained(lambda models: models), by_hand()],
        "the generator": [trained(lambda models: models[:1]), by_hand()],
        "the critic": [trained(lambda models: models[1:]), by_hand()],
    }


if __name__ == "__main__":
    print(json.dumps(dist.launch(cases, 2)))
