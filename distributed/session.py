"""The backend of this process: found out, joined and left. The one place of this room that remembers anything."""

from __future__ import annotations

import atexit
import gc
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from leyden.distributed.backends import Backend, SerialBackend, TorchBackend, WaitingBackend
from leyden.distributed.common import Common
from leyden.distributed.compat import default_store
from leyden.distributed.environment import Environment, RankLayout
from leyden.distributed.joining import check_backend_name, environment_described_by, join
from leyden.distributed.mesh_layout import Mesh, in_words
from leyden.distributed.mesh_wishes import Wish, settled, together, wish_of

# torch.distributed's default group is the attribute WORLD, whoever made it; a build of PyTorch without it has none.
_groups: Any = dist.group if dist.is_available() else SimpleNamespace(WORLD=None)


class Session:
    """Follows torch.distributed's default group, whoever makes or destroys it."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._registered_at_exit = False
        self._groups: dict[tuple[int, ...], Any] = {}  # by their ranks, for those who name the ranks at each call
        self._wishes: list[Wish] = []
        self._mesh: Mesh | None = None  # once several ranks have used it
        self.joined = 0
        """Groups that this process has seen; each has a mesh of its own."""
        self.common = Common()

    def current(self) -> Backend:
        """The backend as things stand now."""
        backend = self._backend
        if backend is None or backend.group is not _groups.WORLD:
            backend = self._look()
        return backend

    def initialize(
        self,
        backend: str | None,
        timeout: timedelta | float | None,
        init_method: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        check_backend_name(backend)
        current = self._look() if self._backend is None or self._backend.group is None else self.current()
        if isinstance(current, TorchBackend):
            if backend is not None and backend.lower() not in current.names():
                raise RuntimeError(
                    f"initialize(backend={backend!r}) was called, but this process has joined a {current.name} group "
                    "already: call finalize() first, or leave the backend out"
                )
            return
        environment = environment_described_by(init_method, rank, world_size)
        if environment.place.world_size == 1:
            return
        group, place = join(environment, backend, _as_timedelta(timeout))
        self._backend = TorchBackend(group, place, owned=True)
        self.joined += 1
        if not self._registered_at_exit:
            atexit.register(self._at_exit)
            self._registered_at_exit = True

    def finalize(self) -> None:
        backend = self._backend
        common, self._backend = self.common, None
        self._forget_groups()
        self._wishes.clear()
        if backend is None or backend.group is not _groups.WORLD:
            return
        # A gloo worker thread that still holds tensors aborts the interpreter at its exit: let go of garbage first.
        gc.collect()
        if backend.group is not None:  # which may be the user's, and stay
            common.leave_agreements(dist.destroy_process_group)
        backend.close()

    def group_of(self, ranks: Sequence[int], timeout: timedelta | float | None) -> Any:
        """The group of these ranks, made when it is first asked for; by every rank."""
        backend = self.current()
        key = tuple(ranks)
        size = backend.place.world_size
        if not key or len(set(key)) < len(key) or not all(0 <= rank < size for rank in key):
            raise ValueError(f"a group has ranks from 0 to {size - 1}, each once, but got {list(ranks)}")
        if key not in self._groups:
            self._groups[key] = backend.new_group(key, _as_timedelta(timeout))
        return self._groups[key]

    def set_local_rank(self, local_rank: int) -> None:
        backend = self.current()
        backend.place = replace(
            backend.place, local_rank=local_rank, local_world_size=max(backend.place.local_world_size, local_rank + 1)
        )

    def mesh(self) -> Mesh:
        """The mesh as it is, or, before the ranks are joined, as it would be."""
        backend = self.current()
        if self._mesh is not None:
            return self._mesh
        place = backend.place
        if place.world_size == 1:
            make = backend.split if isinstance(backend, TorchBackend) else None
            return Mesh({}, 0, make, backend.device().type)
        sizes = settled(self._wishes, place.world_size)
        if not isinstance(backend, TorchBackend):
            return Mesh(sizes, place.rank)
        self._compare_with_others(sizes)
        self._mesh = Mesh(sizes, place.rank, backend.split, backend.device().type)
        return self._mesh

    def _compare_with_others(self, sizes: Mapping[str, int]) -> None:
        """Raises ValueError if a rank that has asked for the mesh before has another one. Nobody waits for others."""
        store, key = default_store(), f"leyden/mesh/{self.joined}"
        told = json.dumps(sizes).encode()
        try:
            first = told if store is None else store.compare_set(key, "", told.decode())
        except RuntimeError:  # a store that can't do that, or is gone: nothing else needs it
            return
        if first != told:
            wishes = "".join(f"; {wish}" for wish in self._wishes)
            raise ValueError(
                f"the mesh of a run is one for all ranks, but another rank has {in_words(json.loads(first))}, and this "
                f"one {in_words(sizes)}{wishes}: let all ranks ask for the same"
            )

    def request_mesh(self, owner: object, sizes: Mapping[str, int]) -> None:
        """Remembers what is asked of the mesh. In one process, of which each run has a mesh of its own, nothing is."""
        wish = wish_of(owner, sizes)
        world_size = self.current().place.world_size
        if world_size == 1:
            return
        if self._mesh is None:
            together([*self._wishes, wish], world_size)
        elif any(size not in (-1, self._mesh.sizes[name]) for name, size in wish.sizes.items()):
            raise RuntimeError(
                f"{wish}, but the mesh of this run is in use already, as {in_words(self._mesh.sizes)}"
                f"{''.join(f' ({each})' for each in self._wishes)}: ask for it before anything uses the mesh, or say "
                "leyden.distributed.initialize(mesh=...) at the start of the script"
            )
        self._wishes.append(wish)

    def _look(self) -> Backend:
        self._forget_groups()
        if self._backend is not None and self._backend.group is not None:
            self._wishes.clear()  # they were about a group that is gone
        self._backend = backend = _found()
        self.joined += isinstance(backend, TorchBackend)
        return backend

    def _forget_groups(self) -> None:
        self._groups.clear()
        self._mesh = None
        self.common = Common()

    def _at_exit(self) -> None:
        # After an uncaught exception the other ranks may be gone or stuck; the process just ends, with its error.
        if getattr(sys, "last_value", None) is None:
            self.finalize()


def _found() -> Backend:
    """The backend for what is there: a group that somebody made, else what the environment describes."""
    group = _groups.WORLD
    if group is not None:
        return TorchBackend(group, _place_in_group(group), owned=False)
    environment = Environment.read(os.environ)
    return WaitingBackend(environment) if environment.place.world_size > 1 else SerialBackend()


def _place_in_group(group: dist.ProcessGroup) -> RankLayout:
    """The place in a group that the user made; unless the variables fit, its processes are taken to share a machine."""
    try:
        place = Environment.read(os.environ).place
    except ValueError:  # half of them are set, say: the group knows better
        place = RankLayout()
    if (place.rank, place.world_size) == (group.rank(), group.size()):
        return place
    return RankLayout(group.rank(), group.rank(), group.size(), group.size())


def _as_timedelta(timeout: timedelta | float | None) -> timedelta | None:
    return timeout if timeout is None or isinstance(timeout, timedelta) else timedelta(seconds=timeout)


session = Session()


def initialize(
    backend: str | None = None,
    init_method: str | None = None,
    *,
    timeout: timedelta | float | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    mesh: Mapping[str, int] | None = None,
) -> None:
    """Join the process group that the environment describes; in one process do nothing.

    torchrun, SLURM's srun, or RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say who takes part. The group is left when
    the interpreter ends. A second call does nothing; a group made by `torch.distributed.init_process_group` is adopted.

    Args:
        backend: "gloo", "nccl", or another that this PyTorch has. None takes the one meant for the device: nccl on
            CUDA, gloo on CPU. Beside a backend for an accelerator, gloo serves tensors on the CPU.
        timeout: how long a collective may wait for the other ranks, in seconds or as a timedelta; None for PyTorch's
            default.
        init_method: where the ranks meet, if the environment does not say: "tcp://host:port", "file:///path", or
            "env://" for what the environment says.
        rank: this process among all, beside an `init_method`; None for what the environment says.
        world_size: how many processes there are; the same.
        mesh: the sizes of the run's mesh, {"replicate": -1, "tensor": 2} say, as for `request_mesh`.

    Raises:
        ValueError: the backend is unknown, the environment contradicts itself, or the mesh does not fit the ranks.
        RuntimeError: another backend was joined before, there is no device for this rank, or another mesh is in use.
    """
    session.initialize(backend, timeout, init_method, rank, world_size)
    if mesh is not None:
        session.request_mesh("initialize()", mesh)


def finalize() -> None:
    """Leave the process group that `initialize` joined. A group that the user made is left to the user."""
    session.finalize()


def is_initialized() -> bool:
    """Whether a process group is up: always False in one process."""
    return session.current().group is not None


def rank() -> int:
    """This process among all, from 0. Before `initialize`, as the environment says."""
    return session.current().place.rank


def local_rank() -> int:
    """This process among those on its node, from 0. Before `initialize`, as the environment says."""
    return session.current().place.local_rank


def world_size() -> int:
    """How many processes there are. Before `initialize`, as the environment says."""
    return session.current().place.world_size


def local_world_size() -> int:
    """How many processes run on this node."""
    return session.current().place.local_world_size


def node_rank() -> int:
    """This process's node among all nodes, from 0."""
    return session.current().place.node_rank


def node_count() -> int:
    """How many nodes (machines) take part."""
    return session.current().place.node_count


def device() -> torch.device:
    """The device on which this process computes: its accelerator, or the CPU where there is none or gloo was chosen."""
    return session.current().device()


def backend() -> str | None:
    """ "gloo", "nccl", ...; None where nothing is distributed: in one process, and in one of several before
    `initialize`.
    """
    current = session.current()
    return None if current.group is None else current.name
