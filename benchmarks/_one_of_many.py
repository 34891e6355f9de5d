"""One process plays one rank of many: torch's fake process group says so, and the others' answers are played.

The others are taken to do at each moment what this rank does, with the same values: a sum is the rank's own times the
number of ranks, a gather has its value for each of them, and where rank 0 decides for all, this process does what
rank 0 would do, uncounted. Counted is what crosses the network at this rank, by the algorithms that gloo and NCCL have:
a reduction to all takes 2 log2(W) messages, a broadcast log2(W) at its root and one elsewhere, a gather to all W - 1, a
gather to one rank W - 1 there and one elsewhere. Bytes are those that arrive at this rank.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from leyden import distributed as dist


@dataclass
class Cost:
    """What one moment costs one rank."""

    opened: int = 0
    json: int = 0
    """Bytes read of files of JSON and of indices."""
    tensors: int = 0
    """Bytes read of other files."""
    calls: int = 0
    """Of collectives."""
    messages: int = 0
    arrived: int = 0
    """Bytes of messages."""
    sockets: int = 0
    """Connections that new groups open."""
    memory: int = 0
    """Bytes that Python had allocated at the most, beyond what there was."""


class PlayedGroup:
    """A process group of its own, as `Agreement` has it."""

    def __init__(self, ranks: OneOfMany) -> None:
        self._ranks = ranks

    def allreduce(self, tensors: list[torch.Tensor], *_: Any) -> PlayedGroup:
        for tensor in tensors:
            self._ranks.all_reduce(tensor)
        return self

    def wait(self) -> None:
        return


class PlayedStore:
    """The store in which ranks meet, as one of them finds it when the others have come."""

    def __init__(self, ranks: OneOfMany) -> None:
        self._ranks = ranks

    def set(self, key: str, value: Any) -> None:
        self._ranks._count("store", 1, 0)

    def wait(self, keys: list[str], timeout: Any) -> None:
        self._ranks._count("store", len(keys), 0)

    def check(self, keys: list[str]) -> bool:
        self._ranks._count("store", len(keys), 8)
        return True

    def delete_key(self, key: str) -> bool:
        self._ranks._count("store", 1, 8)
        return True

    def add(self, key: str, amount: int) -> int:
        self._ranks._count("store", 1, 8)
        return self._ranks.rank

    def compare_set(self, key: str, expected: str, value: str) -> bytes:
        self._ranks._count("store", 1, len(value))
        return value.encode()

    def get(self, key: str) -> bytes:
        value = str(self._ranks.size - 1).encode() if key.endswith("/closed") else b"0" * 32
        self._ranks._count("store", 1, len(value))
        return value


class OneOfMany:
    """Rank `rank` of `size`. `play()` is the context in which it is one."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.cost = Cost()
        self.kinds: Counter[str] = Counter()
        self.decided: list[Any] = []
        """What rank 0 has decided for all."""
        self.replayed: list[Any] = []
        """What it has decided already, where another rank does the same after it."""
        self._watched: Path | None = None
        self._hops = max(1, math.ceil(math.log2(size)))

    @contextlib.contextmanager
    def play(self) -> Iterator[OneOfMany]:
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=self.rank, world_size=self.size)
        try:
            with contextlib.ExitStack() as stack:
                for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast", "broadcast_object_list"):
                    stack.enter_context(mock.patch.object(torch.distributed, name, getattr(self, name)))
                for name in ("barrier", "new_group"):
                    stack.enter_context(mock.patch.object(torch.distributed, name, getattr(self, name)))
                store = PlayedStore(self)
                stack.enter_context(mock.patch("leyden.distributed.words.default_store", return_value=store))
                # Meshes that are equal share what torch remembers of them, and one of another rank may be among them.
                coordinates = property(self._coordinates, lambda mesh, value: None)
                stack.enter_context(mock.patch.object(DeviceMesh, "_coordinate_on_dim", coordinates, create=True))
                for module in [each for key, each in sys.modules.items() if key.startswith("leyden.handlers")]:
                    if hasattr(module, "on_rank_zero"):
                        stack.enter_context(mock.patch.object(module, "on_rank_zero", self._on_rank_zero))
                yield self
        finally:
            torch.distributed.destroy_process_group()

    @contextlib.contextmanager
    def measured(self, folder: Path | None = None) -> Iterator[Cost]:
        """Counts what happens meanwhile; files are those within `folder`."""
        self.cost = cost = Cost()
        self.kinds.clear()
        self._watched = folder
        _listeners.append(self._hear)
        read = _bytes_read()
        tracemalloc.start()
        try:
            yield cost
        finally:
            cost.memory = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            cost.tensors = max(0, _bytes_read() - read - cost.json)
            _listeners.remove(self._hear)

    # -- what the others answer --------------------------------------------------------------------------------

    def all_reduce(self, tensor: torch.Tensor, op: Any = torch.distributed.ReduceOp.SUM, group: Any = None) -> None:
        self._count("all_reduce", 2 * self._hops, tensor.nbytes * 2)
        if tensor.dim() == 3 and len(tensor) == self.size:  # each rank fills in a row of its own
            tensor.copy_(tensor[self.rank].expand_as(tensor))
        elif op == torch.distributed.ReduceOp.SUM:
            tensor.mul_(self.size)

    def all_gather(self, rows: list[torch.Tensor], tensor: torch.Tensor, group: Any = None) -> None:
        self._count("all_gather", self.size - 1, tensor.nbytes * (self.size - 1))
        for row in rows:
            row.copy_(tensor)

    def all_gather_object(self, gathered: list[Any], value: Any, group: Any = None) -> None:
        self._count("all_gather of objects", 2 * (self.size - 1), len(pickle.dumps(value)) * (self.size - 1))
        gathered[:] = [_as_of(value, self.rank, rank) for rank in range(self.size)]

    def count_gather(self, others: list[Any]) -> None:
        """To rank 0: a number of each rank, and what some of the others have to tell."""
        root = self.rank == 0
        told = [len(pickle.dumps(other)) for other in others]
        self._count("gather", self.size - 1 + len(told) if root else 2, 8 * (self.size - 1) + sum(told) if root else 0)

    def broadcast(self, tensor: torch.Tensor, src: int = 0, group: Any = None) -> None:
        self._count("broadcast", self._hops if self.rank == src else 1, 0 if self.rank == src else tensor.nbytes)

    def broadcast_object_list(self, box: list[Any], src: int = 0, group: Any = None) -> None:
        size = 0 if self.rank == src else len(pickle.dumps(box[0]))
        self._count("broadcast of objects", 2 * self._hops if self.rank == src else 2, size)

    def barrier(self, *_: Any, **__: Any) -> None:
        self._count("barrier", 2 * self._hops, 0)

    def new_group(self, *_: Any, **__: Any) -> PlayedGroup:
        lazy = os.environ.get("TORCH_GLOO_LAZY_INIT") == "1"
        self.cost.sockets += min(2 * self._hops, self.size - 1) if lazy else self.size - 1
        self.kinds["new group"] += 1
        return PlayedGroup(self)

    def _coordinates(self, mesh: DeviceMesh) -> tuple[int, ...]:
        return tuple(int(place) for place in np.unravel_index(dist.rank(), tuple(mesh.shape)))

    def _on_rank_zero(self, function: Callable[[], Any]) -> Any:
        if self.rank == 0:
            value = function()
            self.decided.append(value)
        elif self.replayed:
            value = self.replayed.pop(0)
        else:
            watched, self._watched = self._watched, None
            with as_rank(0):
                value = function()
            self._watched = watched
        box = [(value, None)]
        self.broadcast_object_list(box)
        return value

    def _count(self, kind: str, messages: int, arrived: int) -> None:
        self.kinds[kind] += 1
        self.cost.calls += 1
        self.cost.messages += messages
        self.cost.arrived += arrived

    def _hear(self, path: str) -> None:
        if self._watched is not None and path.startswith(str(self._watched)) and os.path.isfile(path):
            self.cost.opened += 1
            if not path.endswith(".safetensors"):
                self.cost.json += os.path.getsize(path)


@contextlib.contextmanager
def as_rank(rank: int) -> Iterator[None]:
    """leyden takes this process for another rank."""
    from leyden.distributed.session import session

    backend = session.current()
    place = backend.place
    backend.place = replace(place, rank=rank)
    try:
        yield
    finally:
        backend.place = place


def _as_of(value: Any, mine: int, rank: int) -> Any:
    """What that rank would have said: its own number where this one said its own."""
    if rank == mine:
        return value
    if isinstance(value, str):
        return value.replace(f"ranks/{mine}/", f"ranks/{rank}/")
    if isinstance(value, dict):
        return {
            str(rank) if key == str(mine) else _as_of(key, mine, rank): _as_of(item, mine, rank)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(_as_of(item, mine, rank) for item in value)
    return value


_listeners: list[Callable[[str], None]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _listeners and isinstance(args[0], str) and "r" in str(args[1]):
        for listener in _listeners:
            listener(args[0])


sys.addaudithook(_audit)


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].partition(":")[2])
