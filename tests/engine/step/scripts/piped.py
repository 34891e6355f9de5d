"""Two ranks, each with one stage of a model, run by a schedule of torch.distributed.pipelining that fills the driver's
slot; prints weights and norms beside those of one process with the whole model.
"""

import json

import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from leyden import distributed as dist
from leyden.engine import UpdateEvents, supervised_trainer
from leyden.engine.step import call_arguments
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision

MICRO_BATCHES = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return x


class Pipeline:
    """Fills the slots driver and join of an update whose model is a stage."""

    def __init__(self, stage, rank):
        self.first, self.last = rank == 0, rank == 1
        self.stage = PipelineStage(stage, rank, 2, torch.device("cpu"))
        self.schedule = Schedule1F1B(self.stage, MICRO_BATCHES, loss_fn=self.loss, scale_grads=False)

    def loss(self, output, target):
        loss = self.loss_fn(output, target)
        self.losses.append(loss.detach())
        return self.transform(loss, MICRO_BATCHES)

    def drive(self, update, forward, inputs, targets, loss_fn, transform):
        self.loss_fn, self.transform, self.losses = loss_fn, transform, []
        args, kwargs = call_arguments(forward, inputs)
        output = self.schedule.step(*(args if self.first else ()), **kwargs, target=targets if self.last else None)
        return output, torch.stack(self.losses).mean() if self.last else None

    def join(self, number, operation):
        return dist.all_reduce(number, op=operation)


def batches(number=5):
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randn(2, 8, 6, generator=generator)) for _ in range(number)]


def trained(handlers, piped):
    model, rank = Net(), dist.rank()
    if piped:
        del model.layers[2 * (1 - rank) : 2 * (1 - rank) + 2]
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9), nn.MSELoss())
    update = trainer.updates["default"]
    update.independent = True
    if piped:
        pipeline = Pipeline(model, rank)
        update.slots.claim("driver", pipeline, pipeline)
        update.slots.claim("join", pipeline, pipeline.join)
    trainer.attach(*handlers())
    skipped = []
    trainer.add_event_handler(UpdateEvents.STEP_SKIPPED, lambda engine: skipped.append(engine.state.iteration))
    trainer.run(batches(), max_epochs=1)
    layers = model.layers if piped else model.layers[2 * rank : 2 * rank + 2]
    return {
        "weights": [float(p.detach().double().sum()) for layer in layers for p in layer.parameters()],
        "norm": float(trainer.state.metrics.get("grad_norm", 0.0)),
        "steps": update.steps,
        "skipped": skipped,
        "loss": None if trainer.state.output is None else float(trainer.state.output),
    }


CASES = {
    "nothing": list,
    "window, clip": lambda: [GradientAccumulation(2), ClipGradients(norm=0.01)],
    "weights": lambda: [GradientAccumulation(3, weight=lambda batch: len(batch[0]))],
    "fp16": lambda: [MixedPrecision("fp16", init_scale=8.0)],
    "overflow": lambda: [MixedPrecision("fp16", init_scale=2.0**20)],
}


def cases():
    return {name: [trained(handlers, True), trained(handlers, False)] for name, handlers in CASES.items()}


if __name__ == "__main__":
    print(json.dumps(dist.launch(cases, 2)))
