"""One of two ranks that a script starts by hand: no launcher, no variables."""

import sys

from leyden import distributed as dist

dist.initialize("gloo", sys.argv[1], rank=int(sys.argv[2]), world_size=2)
total = dist.all_reduce(dist.rank() + 1)
print((dist.rank(), dist.local_rank(), dist.world_size(), dist.local_world_size(), dist.backend(), total))
dist.finalize()
