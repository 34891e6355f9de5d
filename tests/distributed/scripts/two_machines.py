"""One of two launchers that share a job, as two machines would; the argument is its number."""

import sys

import rank_functions

from leyden import distributed as dist

if __name__ == "__main__":
    machines = {"nnodes": 2, "node_rank": int(sys.argv[1]), "master_addr": "127.0.0.1", "master_port": 29477}
    with dist.Parallel("gloo", nproc_per_node=1, **machines) as parallel:
        print(parallel.run(rank_functions.take, {"x": 3}))
