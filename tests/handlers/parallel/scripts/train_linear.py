"""A training script as a user writes it, for any number of processes. The argument is the batch size of one process."""

import json
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leyden import distributed as dist
from leyden.engine import Engine, Events, supervised_trainer
from leyden.handlers import DataParallel, Evaluate

torch.manual_seed(0)
model = nn.Linear(3, 1)
data = TensorDataset(torch.randn(24, 3), torch.randn(24, 1))
trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
evaluator = Engine(lambda engine, batch: batch, training=False)
evaluated = []
evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: evaluated.extend(engine.state.output.tolist()))
trainer.attach(DataParallel(), Evaluate(evaluator, DataLoader(range(7), batch_size=2), every=2))
trainer.run(DataLoader(data, batch_size=int(sys.argv[1])), max_epochs=2)
parameters = [value for parameter in model.parameters() for value in parameter.flatten().tolist()]
result = {"rank": dist.rank(), "parameters": parameters, "evaluated": evaluated, "steps": trainer.state.step}
sys.stdout.write(json.dumps(result) + "\n")  # in one piece: the ranks share the pipe
sys.stdout.flush()
