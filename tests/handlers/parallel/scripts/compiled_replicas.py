"""Two ranks train a compiled model by DataParallel and by DistributedDataParallel; prints graphs and weights."""

import json

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden import distributed as dist
from leyden.engine import supervised_trainer
from leyden.handlers import Compile, DataParallel

BUCKET = 1  # MiB, as many as a layer has


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(6))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return x


def net():
    torch.manual_seed(0)
    return Net()


class Counted:
    """A backend of torch.compile that counts the graphs it is given."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph


def batches():
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(3, 2, 4, 512, generator=generator))


def by_leyden(bucket=BUCKET, **options):
    torch._dynamo.reset()
    backend, model = Counted(), net()
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
    trainer.attach(DataParallel(deal="nothing", bucket_cap_mb=bucket), Compile(backend=backend, **options))
    trainer.run([(batch[dist.rank()], batch[dist.rank()].sin()) for batch in batches()], max_epochs=1)
    return {"graphs": backend.graphs, "weights": [float(p.sum()) for p in model.parameters()]}


def by_hand():
    torch._dynamo.reset()
    backend, model = Counted(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replica = DistributedDataParallel(model, bucket_cap_mb=BUCKET)
    model.compile(backend=backend)
    for batch in batches():
        optimizer.zero_grad()
        nn.functional.mse_loss(replica(batch[dist.rank()]), batch[dist.rank()].sin()).backward()
        optimizer.step()
    return {"graphs": backend.graphs, "weights": [float(p.sum()) for p in model.parameters()]}


def cases():
    return {
        "leyden": by_leyden(),
        "whole graph": by_leyden(fullgraph=True),
        "small buckets": by_leyden(0.5),
        "by hand": by_hand(),
    }


if __name__ == "__main__":
    print(json.dumps(dist.launch(cases, 2)))
