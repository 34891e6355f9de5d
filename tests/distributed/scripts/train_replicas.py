"""A training script as a user writes it, without a line of teardown. The argument says what goes wrong, if anything."""

import sys
import time

import torch
from torch import nn

from leyden import distributed as dist

what = sys.argv[1]
assert dist.world_size() == 2  # known before the group is up
dist.initialize()
torch.manual_seed(dist.rank())
model = dist.auto_model(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)))
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    loss = model(torch.randn(8, 16)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
if what == "error" and dist.rank() == 1:
    raise LookupError("lost on rank 1")
if what == "error-alone" and dist.rank() == 1:
    raise LookupError("lost on rank 1")
if what == "error-alone":
    time.sleep(1)  # rank 0 goes on without needing the other, and ends well
elif what == "error":
    dist.barrier()
print(f"rank {dist.rank()}: {dist.all_reduce(dist.rank() + 1) if what == 'well' else 'alone'}", flush=True)
