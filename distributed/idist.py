"""The names that users of ignite.distributed know."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch.distributed as dist

from leyden.distributed.launching import Nodes, launch
from leyden.distributed.session import (
    backend,
    local_rank,
    local_world_size,
    node_count,
    node_rank,
    rank,
    session,
    world_size,
)

has_native_dist_support: bool = dist.is_available()
"""Whether this build of PyTorch has torch.distributed."""

get_rank = rank
get_local_rank = local_rank
get_world_size = world_size
get_node_rank = node_rank
get_nnodes = node_count
get_nproc_per_node = local_world_size


def hostname() -> str:
    """The name of the machine on which this process runs."""
    return socket.gethostname()


def model_name() -> str:
    """The library by which the processes talk: "serial", or "native-dist" for torch.distributed."""
    return session.current().family


def set_local_rank(index: int) -> None:
    """Say which process on its node this is, where a group was made by hand and no environment variable tells.

    Raises:
        ValueError: `index` is negative, or not less than the number of processes.
    """
    session.set_local_rank(index)


def spawn(
    backend: str | None,
    fn: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs_dict: Mapping[str, Any] | None = None,
    nproc_per_node: int = 1,
    *,
    nnodes: int | None = None,
    node_rank: int | None = None,
    master_addr: str | None = None,
    master_port: int | None = None,
    init_method: str | None = None,
    timeout: timedelta | float | None = None,
) -> list[Any]:
    """Run `fn(local_rank, *args, **kwargs_dict)` in `nproc_per_node` processes on this machine, by `launch`.

    Args:
        nnodes: how many machines run this, None for one; with several, `master_addr` and `master_port` say where rank 0
            listens, or `init_method="tcp://host:port"` does.
        node_rank: this machine's number, from 0; may be None where there is one machine.

    Raises:
        ValueError: machines are described incompletely.
        RankError: a rank failed.
    """
    nodes = None
    nnodes = 1 if nnodes is None else nnodes
    if init_method is not None and init_method != "env://":
        master_addr, master_port = _address(init_method)
    if node_rank is None:
        if nnodes > 1:
            raise ValueError(f"with nnodes={nnodes}, node_rank says which machine this is, from 0, but got None")
        node_rank = 0
    if nnodes > 1:
        if master_addr is None or master_port is None:
            raise ValueError(
                f"with nnodes={nnodes}, master_addr and master_port say where rank 0 listens, "
                f"but got master_addr={master_addr!r}, master_port={master_port!r}"
            )
        nodes = Nodes(node_rank, nnodes, master_addr, master_port)
    if not 0 <= node_rank < nnodes:
        raise ValueError(f"node_rank lies between 0 and {nnodes - 1}, but got {node_rank}")
    return launch(
        _with_local_rank,
        nproc_per_node,
        args=(fn, tuple(args), dict(kwargs_dict or {})),
        backend=backend,
        timeout=timeout,
        nodes=nodes,
    )


def show_config() -> None:
    """Prints, on rank 0, the ranks that take part and their backend."""
    if rank() == 0:
        for line in (
            f"distributed configuration: {model_name()}",
            f"backend: {backend()}",
            f"device: {session.current().device().type}",
            f"hostname: {hostname()}",
            f"world size: {world_size()}",
            f"rank: {rank()}",
            f"local rank: {local_rank()}",
            f"num processes per node: {local_world_size()}",
            f"num nodes: {node_count()}",
            f"node rank: {node_rank()}",
        ):
            print(line, flush=True)


def _address(init_method: str) -> tuple[str, int]:
    parts = urlsplit(init_method)
    if parts.scheme != "tcp" or not parts.hostname or not parts.port:
        raise ValueError(f"processes that are started here meet at 'tcp://host:port', but init_method={init_method!r}")
    return parts.hostname, parts.port


def _with_local_rank(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(local_rank(), *args, **kwargs)
