"""Start ranks on this machine from a running script, and bring back what they return."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

import torch.distributed as dist
from torch import multiprocessing

from leyden.distributed.session import finalize, initialize, is_initialized, world_size

R = TypeVar("R")

_NAME = "leyden-rank-"
_GRACE = 5.0  # seconds between asking a process to end and killing it


class RankError(RuntimeError):
    """A rank that `launch` started has failed. `rank` is its number; the message holds its traceback."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank


class Nodes(NamedTuple):
    """The machines of a launch: this one's number, how many there are, and where rank 0 listens."""

    rank: int
    total: int
    address: str
    port: int


def launch(
    fn: Callable[..., R],
    nproc: int,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    backend: str | None = None,
    timeout: timedelta | float | None = None,
    nodes: Nodes | None = None,
) -> list[R]:
    """Run `fn(*args, **kwargs)` in `nproc` processes on this machine, joined in one group; return its values by rank.

    The processes are fresh ("spawn"): `fn`, its arguments and its values must be picklable, and a script calls `launch`
    under `if __name__ == "__main__":`. Where the script already is one of several processes (torchrun, SLURM), or
    `nproc` is 1, `fn` runs right here, and the list holds this rank's value only.

    Args:
        fn: a function at the top level of a module.
        nproc: how many processes to start, at least 1.
        backend: as for `initialize`.
        timeout: as for `initialize`: how long a collective may wait for the other ranks.
        nodes: for one launch over several machines, each calling `launch` with its own.

    Raises:
        RankError: a rank raised an exception or died; the others are ended. The first failure counts.
    """
    if nproc < 1:
        raise ValueError(f"launch starts at least one process, but got nproc={nproc}")
    if multiprocessing.current_process().name.startswith(_NAME) and not is_initialized():
        raise RuntimeError(
            "launch() was reached while a started process imported the script: put the call under "
            'if __name__ == "__main__":'
        )
    if world_size() > 1 or (nproc == 1 and nodes is None):
        initialize(backend, timeout=timeout)
        return [fn(*args, **(kwargs or {}))]
    context = multiprocessing.get_context("spawn")
    store = None
    if nodes is None:
        # The parent serves the store, on a port that the system picks: no race for a free one.
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        nodes = Nodes(0, 1, "127.0.0.1", store.port)
    processes: list[BaseProcess] = []
    receivers: list[Connection] = []
    try:
        for local_rank in range(nproc):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_run_rank,
                args=(sender, fn, tuple(args), dict(kwargs or {}), backend, timeout),
                name=f"{_NAME}{local_rank}",
            )
            with _environment(local_rank, nproc, nodes, agent_hosts_store=store is not None):
                process.start()
            sender.close()
            processes.append(process)
            receivers.append(receiver)
        return _collect(processes, receivers, first_rank=nodes.rank * nproc)
    finally:
        _end(processes)
        for receiver in receivers:
            receiver.close()


def _run_rank(
    sender: Connection,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    backend: str | None,
    timeout: timedelta | float | None,
) -> None:
    """The main function of a started process: one message, with the value or the traceback, goes to the parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        initialize(backend, timeout=timeout)
        message = pickle.dumps((True, fn(*args, **kwargs)))
    except BaseException as error:
        # Told before the group is left, so that the others' broken connections come second.
        sender.send_bytes(pickle.dumps((False, (type(error).__name__, traceback.format_exc()))))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    sender.send_bytes(message)
    finalize()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _collect(processes: list[BaseProcess], receivers: list[Connection], first_rank: int) -> list[Any]:
    values: dict[int, Any] = {}
    waiting = {receiver: index for index, receiver in enumerate(receivers)}
    while waiting:
        for receiver in wait(list(waiting)):
            assert isinstance(receiver, Connection)
            index = waiting.pop(receiver)
            rank = first_rank + index
            try:
                succeeded, content = pickle.loads(receiver.recv_bytes())
            except EOFError:
                processes[index].join()
                raise RankError(
                    rank, f"rank {rank} ended with {_ending(processes[index])} before it returned"
                ) from None
            if not succeeded:
                name, trace = content
                raise RankError(rank, f"rank {rank} raised {name}:\n\n{trace}")
            values[index] = content
    for process in processes:
        process.join()
    return [values[index] for index in range(len(processes))]


def _ending(process: BaseProcess) -> str:
    code = process.exitcode or 0
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _environment(local_rank: int, nproc: int, nodes: Nodes, agent_hosts_store: bool) -> Iterator[None]:
    """Describe a process to itself as torchrun would, from its very first import on."""
    variables = {
        "RANK": nodes.rank * nproc + local_rank,
        "WORLD_SIZE": nodes.total * nproc,
        "LOCAL_RANK": local_rank,
        "LOCAL_WORLD_SIZE": nproc,
        "GROUP_RANK": nodes.rank,
        "GROUP_WORLD_SIZE": nodes.total,
        "MASTER_ADDR": nodes.address,
        "MASTER_PORT": nodes.port,
        "TORCHELASTIC_USE_AGENT_STORE": agent_hosts_store,
        # Without a limit each rank starts a thread per core.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // nproc)),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
