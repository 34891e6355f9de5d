"""Two ranks measure with a metric written for Ignite, decorators and all; prints what each finds."""

import json

import torch

from leyden import distributed as dist
from leyden.contrib.ignite.metrics.sync import reinit__is_reduced, sync_all_reduce
from leyden.engine import Engine
from leyden.metrics import Metric


class RightOnes(Metric):
    def __init__(self, output_transform=lambda x: x, device="cpu"):
        self._right = None
        self._count = None
        self._largest = None
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self):
        self._right = torch.tensor(0, device=self._device)
        self._count = 0
        self._largest = 0.0
        super().reset()

    @reinit__is_reduced
    def update(self, output):
        y_pred, y = output[0].detach(), output[1].detach()
        self._right += torch.sum(y_pred.argmax(1) == y).to(self._device)
        self._count += y.shape[0]
        self._largest = max(self._largest, y_pred.max().item())

    @sync_all_reduce("_right", "_count:SUM", "_largest:MAX")
    def compute(self):
        return {"right": self._right.item() / self._count, "count": self._count, "largest": self._largest}


def measured():
    metric, engine = RightOnes(), Engine(lambda engine, batch: batch, training=False)
    metric.attach(engine, "metric")
    rank = dist.rank()
    scores = torch.eye(3)[: 2 + rank] * (1 + rank)  # two samples on rank 0, three on rank 1
    y = torch.zeros(len(scores), dtype=torch.int64)  # the first of each is right
    values = [engine.run([(scores, y)]).metrics["metric"] for _ in range(2)]
    return {"values": values, "own": [metric._count, metric._right.item(), metric._largest]}


if __name__ == "__main__":
    print(json.dumps(dist.launch(measured, 2)))
