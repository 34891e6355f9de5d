"""SLURM's compact notations: host lists (`node[003-007,9]`), tasks per node (`4(x2),3`), and a port for a job."""

from __future__ import annotations

import re

_FIRST_PORT = 15000
_PORTS = 15000  # 15000 to 29999: below the ports that Linux hands out by itself (32768 and up)


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: `node[003-007,9],other` gives `node003`.

    Raises:
        ValueError: the list names no host.
    """
    first = re.match(r"\s*((?:[^,\[\]\s]|\[\s*\d[^\[\]]*\])+)\s*(?:,|$)", nodes)
    if first is None:
        raise ValueError(f"the SLURM node list {nodes!r} names no first host; expected something like node[003-007,9]")
    return re.sub(r"\[\s*(\d+)[^\[\]]*\]", r"\1", first[1])


def tasks_on_node(tasks: str, node: int) -> int:
    """Tasks on node number `node` (from 0), from SLURM's tasks per node: in `4(x2),3` node 1 has 4 and node 2 has 3.

    Raises:
        ValueError: the notation is not SLURM's, or it covers fewer nodes.
    """
    covered = 0
    for part in tasks.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\(x(\d+)\))?\s*", part)
        if match is None:
            raise ValueError(f"the SLURM tasks per node {tasks!r} should look like 4(x2),3")
        covered += int(match[2] or 1)
        if node < covered:
            return int(match[1])
    raise ValueError(f"the SLURM tasks per node {tasks!r} cover {covered} nodes, but this is node {node}")


def port_of_job(job: int) -> int:
    """A TCP port, the same on every rank of a SLURM job. Set MASTER_PORT where two steps of a job train at one time."""
    return _FIRST_PORT + job % _PORTS
