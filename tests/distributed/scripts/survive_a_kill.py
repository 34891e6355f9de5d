"""A rank is killed in the first attempts; every attempt joins, adds up and leaves a line in the file that is named.

The arguments are the file and the number of attempts that end by a kill.
"""

import os
import signal
import sys
from pathlib import Path

from leyden import distributed as dist

log, kills = Path(sys.argv[1]), int(sys.argv[2])
dist.initialize("gloo", timeout=60)
attempt = dist.broadcast(len(log.read_text().splitlines()) if log.exists() else 0)
for _ in range(5):
    total = dist.all_reduce(dist.rank() + 1)
dist.barrier()
if dist.rank() == 0:
    with log.open("a") as file:
        file.write(f"attempt {attempt}: {total}\n")
dist.barrier()
if attempt < kills and dist.rank() == 1:
    os.kill(os.getpid(), signal.SIGKILL)
dist.barrier()
