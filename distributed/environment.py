"""What the environment variables say about this process: which rank it is, among how many, and where they meet.

torchrun and its like describe a process by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; SLURM's srun by
SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID and SLURM_NODEID. Reading them needs no process group, only a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from leyden.distributed.slurm import first_host, port_of_job, tasks_on_node

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "ip6-localhost"})


@dataclass(frozen=True)
class RankLayout:
    """Where one process stands: ranks count from 0, over all nodes (`rank`) and on its own node (`local_rank`)."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    node_rank: int = 0
    node_count: int = 1

    def __post_init__(self) -> None:
        for name, index, limit_name, limit in (
            ("rank", self.rank, "world size", self.world_size),
            ("local rank", self.local_rank, "local world size", self.local_world_size),
            ("node rank", self.node_rank, "node count", self.node_count),
        ):
            if not 0 <= index < limit:
                raise ValueError(
                    f"the environment contradicts itself: {name} {index} with {limit_name} {limit}; "
                    f"a {name} lies between 0 and the {limit_name} less one"
                )
        if self.local_world_size > self.world_size:
            raise ValueError(
                f"the environment contradicts itself: {self.local_world_size} processes on this node, "
                f"{self.world_size} in all"
            )


@dataclass(frozen=True)
class Environment:
    """A launcher's description of this process.

    Args:
        launcher: who described it: "torchrun", "slurm", "variables" (RANK and WORLD_SIZE, set by another) or "none".
        place: this process among all.
        layout_known: False where the variables leave open how many processes share this node; `place` then holds a
            guess, which `initialize` replaces by asking every rank for its host.
        master_address: host on which the ranks find each other; None where the variables name none.
        master_port: TCP port of the same.
        agent_hosts_store: True where the launcher's own process serves that port, False where rank 0 has to.
        init_method: a URL of torch.distributed where the ranks meet, in the place of host and port.
    """

    launcher: str = "none"
    place: RankLayout = RankLayout()
    layout_known: bool = True
    master_address: str | None = None
    master_port: int | None = None
    agent_hosts_store: bool = False
    init_method: str | None = None

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """Read the description out of `variables` (usually `os.environ`).

        Raises:
            ValueError: a variable is not a number, is missing though others call for it, or contradicts another.
        """
        reader = _Reader(variables)
        if reader.has("RANK") or reader.has("WORLD_SIZE"):
            return _from_torch_variables(reader)
        if reader.has("SLURM_PROCID") and not _outside_of_srun(reader):
            return _from_slurm(reader)
        return cls()

    def meeting_point(self) -> tuple[str, int]:
        """Host and port where the ranks meet.

        Raises:
            ValueError: the environment describes several processes, but not where they meet.
        """
        missing = [
            name
            for name, value in (("MASTER_ADDR", self.master_address), ("MASTER_PORT", self.master_port))
            if value is None
        ]
        if self.master_address is None or self.master_port is None:
            raise ValueError(
                f"the environment describes {self.place.world_size} processes, but not where they meet: "
                f"set {' and '.join(missing)}, or start the script with torchrun or srun"
            )
        return self.master_address, self.master_port


class _Reader:
    """Environment variables by name, as text or as whole numbers; an empty one counts as absent."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def has(self, name: str) -> bool:
        return bool(self._variables.get(name))

    def text(self, *names: str) -> str | None:
        """The first of `names` that is set."""
        return next((self._variables[name] for name in names if self.has(name)), None)

    def number(self, *names: str) -> int | None:
        """The first of `names` that is set, as a whole number."""
        for name in names:
            if self.has(name):
                value = self._variables[name]
                if not re.fullmatch(r"\s*-?\d+\s*", value):
                    raise ValueError(f"the environment variable {name} should be a whole number, but is {value!r}")
                return int(value)
        return None

    def required(self, name: str, *others: str) -> int:
        value = self.number(name, *others)
        if value is None:
            raise ValueError(
                f"the environment describes a SLURM task, but {name} is not set: start the script with srun"
            )
        return value


def _from_torch_variables(reader: _Reader) -> Environment:
    elastic = reader.has("TORCHELASTIC_RUN_ID")
    # Scripts for srun often export some of torch's variables and leave the rest to SLURM's.
    if not elastic and reader.has("SLURM_PROCID") and not _outside_of_srun(reader):
        slurm = _from_slurm(reader)
        if _agrees(reader, slurm.place):
            return slurm
    world_size = reader.number("WORLD_SIZE")
    rank = reader.number("RANK")
    if world_size is None:
        raise ValueError(f"the environment sets RANK={rank}, but not WORLD_SIZE: set both or neither")
    if rank is None:
        if world_size > 1:
            raise ValueError(f"the environment sets WORLD_SIZE={world_size}, but not RANK: set both or neither")
        rank = 0
    address = reader.text("MASTER_ADDR")
    place, known = _place(
        rank,
        reader.number("LOCAL_RANK"),
        world_size,
        reader.number("LOCAL_WORLD_SIZE"),
        reader.number("GROUP_RANK"),
        reader.number("GROUP_WORLD_SIZE"),
        one_machine=address in LOOPBACK,
    )
    return Environment(
        launcher="torchrun" if elastic else "variables",
        place=place,
        layout_known=known,
        master_address=address,
        master_port=reader.number("MASTER_PORT"),
        agent_hosts_store=reader.text("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _agrees(reader: _Reader, slurm: RankLayout) -> bool:
    """Whether torch's variables speak of the very processes that srun started, and not of some started below them."""
    world_size = reader.number("WORLD_SIZE")
    rank = reader.number("RANK")
    if world_size is not None and world_size != slurm.world_size:
        if rank is None:
            raise ValueError(
                f"the environment contradicts itself: WORLD_SIZE is {world_size}, but SLURM_NTASKS is "
                f"{slurm.world_size}; leave WORLD_SIZE unset under srun"
            )
        return False
    if rank is not None and rank != slurm.rank:
        raise ValueError(
            f"the environment contradicts itself: RANK is {rank}, but SLURM_PROCID is {slurm.rank} "
            f"of {slurm.world_size} processes; leave RANK unset under srun"
        )
    return True


def _from_slurm(reader: _Reader) -> Environment:
    rank = reader.required("SLURM_PROCID")
    world_size = reader.required("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_NPROCS")
    if world_size == 1:
        return Environment(launcher="slurm")
    local_rank = reader.required("SLURM_LOCALID")
    node_rank = reader.number("SLURM_NODEID")
    node_count = reader.number("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES")
    tasks = reader.text("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    local_world_size = reader.number("SLURM_NTASKS_PER_NODE")
    if tasks is not None and node_rank is not None:
        local_world_size = tasks_on_node(tasks, node_rank)
    place, known = _place(
        rank, local_rank, world_size, local_world_size, node_rank, node_count, one_machine=node_count == 1
    )
    address = reader.text("MASTER_ADDR")
    if address is None:
        nodes = reader.text("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
        address = None if nodes is None else first_host(nodes)
    port = reader.number("MASTER_PORT")
    if port is None:
        job = reader.number("SLURM_JOB_ID", "SLURM_JOBID")
        port = None if job is None else port_of_job(job)
    return Environment(launcher="slurm", place=place, layout_known=known, master_address=address, master_port=port)


def _place(
    rank: int,
    local_rank: int | None,
    world_size: int,
    local_world_size: int | None,
    node_rank: int | None,
    node_count: int | None,
    *,
    one_machine: bool,
) -> tuple[RankLayout, bool]:
    """Fill in what the launcher left out, and say whether all of it is certain.

    Processes that meet on a loopback address share a machine. Otherwise a rank without a local rank is taken to have
    its machine to itself, as Kubernetes' PyTorchJob starts them.
    """
    known = one_machine or None not in (local_rank, local_world_size)
    if local_world_size is None:
        if one_machine or (local_rank is not None and local_rank == rank):
            local_world_size = world_size
        else:
            local_world_size = 1 if local_rank is None else min(max(local_rank + 1, rank - local_rank), world_size)
    share = max(local_world_size, 1)
    if local_rank is None:
        local_rank = rank % share
    if node_count is None:
        node_count = -(-world_size // share)
    if node_rank is None:
        node_rank = min(rank // share, node_count - 1)
    return RankLayout(rank, local_rank, world_size, local_world_size, node_rank, node_count), known


def _outside_of_srun(reader: _Reader) -> bool:
    """Whether SLURM's variables describe an allocation, in whose shell or batch script this is a process by itself."""
    in_shell = reader.text("SLURM_JOB_NAME") in ("bash", "interactive")
    in_batch_script = reader.text("ENVIRONMENT") == "BATCH" and not reader.has("SLURM_STEP_ID")
    return in_shell or in_batch_script
