"""Four ranks: linear layers sharded and split (FSDP x TP), a norm that is sharded alone. Prints what clipping and fp16
make of it on each rank, beside one process with the whole model and batch.
"""

import json

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from leyden import distributed as dist
from leyden.engine import Engine, Update, UpdateEvents
from leyden.handlers import ClipGradients, MixedPrecision


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


def sharded(mesh):
    model = net()
    parallelize_module(model, mesh["tp"], {"1": ColwiseParallel(), "3": RowwiseParallel()})
    fully_shard(model, mesh=mesh["dp"])
    return model


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(model, batches, *handlers, break_at=None, broken=False):
    def step(engine, batch):
        with update.forward():
            loss = model(batch).square().mean()
        update.backward(loss)

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    update.independent = True
    norms, skipped = [], []

    def note(engine):
        norms.append(float(engine.state.metrics.get("grad_norm", 0.0)))

    def spoil(engine):
        if broken and engine.state.iteration == break_at:
            gradient = model[0].weight.grad  # of the norm, which has a mesh of its own
            (gradient.to_local() if hasattr(gradient, "to_local") else gradient).fill_(float("inf"))

    engine.add_event_handler(UpdateEvents.BACKWARD_COMPLETED, spoil)
    engine.add_event_handler(UpdateEvents.GRADIENTS_READY, note, order=99)
    engine.add_event_handler(UpdateEvents.STEP_SKIPPED, lambda engine: skipped.append(engine.state.iteration))
    engine.attach(*handlers)
    engine.run(batches, max_epochs=1)
    return {
        "norms": norms,
        "skipped": skipped,
        "steps": update.steps,
        "weights": [float(whole(p).detach().double().sum()) for p in model.parameters()],
        "per group": {name: float(value) for name, value in engine.state.metrics.items()},
    }


def cases():
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    generator = torch.Generator().manual_seed(1)
    batches = list(torch.randn(3, 4, 8, generator=generator))
    mine = [batch.chunk(2)[mesh["dp"].get_local_rank()] for batch in batches]
    fp16 = {"init_scale": 8.0}
    return {
        name: {
            "sharded": train(sharded(mesh), mine, *handlers(), break_at=2, broken=spoils and dist.rank() == 0),
            "whole": train(net(), batches, *handlers(), break_at=2, broken=spoils),
        }
        for name, handlers, spoils in (
            ("clip", lambda: [ClipGradients(norm=0.1)], False),
            ("inf norm", lambda: [ClipGradients(norm=0.1, norm_type=float("inf"))], False),
            ("value", lambda: [ClipGradients(value=0.01)], False),
            ("overflow", lambda: [MixedPrecision("fp16", **fp16)], True),
        )
    }


if __name__ == "__main__":
    found = dist.launch(cases, 4)
    print(json.dumps(found))
