"""`Parallel`: one `with` for a script that starts its own processes and for one that torchrun or SLURM has started."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from leyden.distributed.idist import spawn
from leyden.distributed.session import finalize, initialize, is_initialized, local_rank


class Parallel:
    """Run functions in a group of processes.

    With `nproc_per_node`, each `run` starts that many processes here. Without it the group is the one that the
    environment describes (torchrun, SLURM), joined on entering and left on leaving; in one process functions just run.

        with Parallel("gloo", nproc_per_node=2) as parallel:
            parallel.run(main, config)                      # main(local_rank, config) in each process

    Args:
        backend: as for `initialize`; None takes the one meant for the device.
        nproc_per_node: processes to start on this machine.
        nnodes: machines that take part, each running this script; None for one.
        node_rank: this machine's number among them; may be None where there is one.
        master_addr: host of rank 0, for several machines.
        master_port: TCP port of rank 0, for several machines.
        init_method: as for `initialize`; for processes to start, "tcp://host:port" in the place of the two before.
        timeout: how long a collective may wait for the other ranks, in seconds or as a timedelta.

    Raises:
        ValueError: `nproc_per_node` is below 1, or machines are described without it.
    """

    def __init__(
        self,
        backend: str | None = None,
        nproc_per_node: int | None = None,
        nnodes: int | None = None,
        node_rank: int | None = None,
        master_addr: str | None = None,
        master_port: int | None = None,
        init_method: str | None = None,
        *,
        timeout: timedelta | float | None = None,
    ) -> None:
        if nproc_per_node is not None and nproc_per_node < 1:
            raise ValueError(f"Parallel starts at least one process, but got nproc_per_node={nproc_per_node}")
        if nproc_per_node is None and (
            nnodes not in (None, 1) or node_rank not in (None, 0) or master_addr or master_port
        ):
            raise ValueError("Parallel describes machines together with nproc_per_node, which is missing")
        self._backend = backend
        self._nproc_per_node = nproc_per_node
        self._timeout = timeout
        self._init_method = init_method
        self._nodes: dict[str, Any] = {
            "nnodes": nnodes, "node_rank": node_rank, "master_addr": master_addr, "master_port": master_port,
            "init_method": init_method,
        }  # fmt: skip
        self._joined = False

    def __enter__(self) -> Self:
        if self._nproc_per_node is None and not is_initialized():
            initialize(self._backend, self._init_method, timeout=self._timeout)
            self._joined = is_initialized()
        return self

    def run(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Call `func(local_rank, *args, **kwargs)` in every process; return the values of those that ran here.

        Raises:
            RankError: a process that was started here failed.
        """
        if self._nproc_per_node is None:
            return [func(local_rank(), *args, **kwargs)]
        return spawn(self._backend, func, args, kwargs, self._nproc_per_node, timeout=self._timeout, **self._nodes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error other ranks may be stuck in a collective: leave the group to the end of the process.
        if self._joined and error is None:
            finalize()
