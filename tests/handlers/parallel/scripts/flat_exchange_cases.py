"""Batches of several losses on the ranks: which gradients they end with, and how many collectives that took."""

import torch
import torch.distributed
from torch import nn

from leyden import distributed as dist
from leyden.engine import Engine, Update, UpdateEvents
from leyden.handlers import DataParallel, GradientAccumulation


class Mixed(nn.Module):
    """Parameters of two dtypes and of two memory formats, and a head for each rank that the other one does not use."""

    def __init__(self, sparse=False):
        super().__init__()
        torch.manual_seed(0)
        self.pixels = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.words = nn.Embedding(7, 3, sparse=sparse)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))
        self.heads = nn.ModuleList(nn.Linear(3, 1) for _ in range(2))
        self.wide = nn.Linear(3, 2).double()

    def forward(self, images, words, head=None):
        x = self.pixels(images).mean((2, 3)) + self.words(words)
        for layer in self.layers:
            x = layer(x).tanh()
        heads = self.heads if head is None else [self.heads[head]]
        return sum(each(x).square().mean() for each in heads), self.wide(x.double()).logsumexp(1).mean()


def batches(number):
    generator = torch.Generator().manual_seed(10 + dist.rank())
    return [
        (torch.randn(4, 2, 5, 5, generator=generator), torch.randint(0, 7, (4,), generator=generator))
        for _ in range(number)
    ]


def losses_of(model, batch, own_head):
    return model(*batch, dist.rank() if own_head else None)


def by_parameter(batches, model, own_head=False):
    """The gradients of a window by a loop in plain torch, each parameter's exchanged by itself."""
    for parameter in model.parameters():
        parameter.grad = None
    for batch in batches:
        for loss in losses_of(model, batch, own_head):
            (loss / len(batches)).backward(retain_graph=True)
    found = []
    for parameter in model.parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        found.append(gradient / dist.world_size())
    return found


def exchanged(window, own_head, sparse=False, **options):
    """(collectives in the run of one window, whether each gradient has the bits of an exchange by parameter)."""
    model, found, calls = Mixed(sparse), [], []

    def step(engine, batch):
        with update.forward():
            first, second = losses_of(model, batch, own_head)
        update.accumulate(first, retain_graph=True)
        update.accumulate(second)
        before = len(calls)
        update.close()
        return len(calls) - before

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    engine.attach(DataParallel(deal="nothing", **options), GradientAccumulation(window))
    engine.add_event_handler(
        UpdateEvents.GRADIENTS_READY,
        lambda engine: found.extend(each.to_dense().clone() for each in update.gradients()),
    )
    genuine = torch.distributed.all_reduce

    def counting(*args, **kwargs):
        calls.append(args)
        return genuine(*args, **kwargs)

    torch.distributed.all_reduce = counting
    try:
        engine.run(batches(window))
    finally:
        torch.distributed.all_reduce = genuine
    theirs = by_parameter(batches(window), Mixed(sparse), own_head)
    return engine.state.output, [torch.equal(*pair) for pair in zip(found, theirs, strict=True)]


def dense(window, own_head):
    return exchanged(window, own_head)


def with_small_buckets():
    return exchanged(1, own_head=False, bucket_cap_mb=1e-5)


def with_option(name):
    return exchanged(2, own_head=False, **{name: True})


def reached_by_nobody():
    """What becomes of a head that no rank uses, and of one that rank 0 alone uses; AdamW decays what it steps."""
    model = Mixed()
    before = [each.detach().clone() for head in model.heads for each in head.parameters()]

    def step(engine, batch):
        with update.forward():
            first, second = model(*batch, 0)
        if dist.rank() == 0:
            update.accumulate(first, retain_graph=True)
        update.accumulate(second)
        update.close()

    engine = Engine(step)
    update = Update(engine, model, torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1))
    engine.attach(DataParallel(deal="nothing"))
    engine.run(batches(3))
    after = [each.detach() for head in model.heads for each in head.parameters()]
    return [torch.equal(*pair) for pair in zip(before, after, strict=True)]


def sparse():
    try:
        exchanged(1, own_head=False, sparse=True)
    except ValueError as error:
        return str(error)
