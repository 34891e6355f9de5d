"""torch.distributed: gloo on CPUs, nccl on CUDA, and whatever else this build of PyTorch was given (xccl, mpi, ...)."""

from __future__ import annotations

import copy
import struct
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from leyden.distributed.backends.base import Reduction
from leyden.distributed.compat import timeout_of
from leyden.distributed.devices import device_of_rank
from leyden.distributed.environment import RankLayout

# Neither gloo nor nccl adds up these; a wider type carries them.
_CARRIERS = {torch.bool: torch.uint8, torch.int16: torch.int32, torch.uint16: torch.int32, torch.uint32: torch.int64}


class TorchBackend:
    """The default process group of torch.distributed.

    Args:
        group: the group, with all ranks in it.
        place: this process among all.
        owned: True where leyden made the group, and so destroys it.
    """

    family = "native-dist"

    def __init__(self, group: dist.ProcessGroup, place: RankLayout, *, owned: bool) -> None:
        self.group: dist.ProcessGroup | None = group
        self.place = place
        self.size = place.world_size
        self.index = place.rank
        self.owned = owned
        self._backends = _backends_of(group)
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        self._on_cpu = accelerator is None or self._backends.get(accelerator.type) in (None, self._backends.get("cpu"))
        self.name = self._backends[self.device().type]

    @property
    def timeout(self) -> timedelta | None:
        """How long a collective of this group waits for the other ranks; None where torch does not tell."""
        assert self.group is not None
        device = torch.device("cpu" if "cpu" in self._backends else next(iter(self._backends)))
        return timeout_of(self.group, device)

    def names(self) -> set[str]:
        """All by which a user may call this backend."""
        specification = ",".join(f"{device}:{name}" for device, name in self._backends.items())
        return {self.name, specification}

    def device(self) -> torch.device:
        return torch.device("cpu") if self._on_cpu else device_of_rank(self.place.local_rank)

    def reduce(self, tensor: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        dtype = torch.int64 if tensor.dtype == torch.bool and reduction == "sum" else tensor.dtype
        carrier = _CARRIERS.get(dtype, dtype)
        # .to() copies only where something changes, and the collective works in place.
        sent = tensor.detach().to(
            self._carrier_device(tensor), carrier, memory_format=torch.contiguous_format, copy=True
        )
        dist.all_reduce(sent, getattr(dist.ReduceOp, reduction.upper()), group=self.group)
        return sent.to(tensor.device, dtype)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        size = self.size
        sent = tensor.detach().to(self._carrier_device(tensor)).contiguous()
        gathered = torch.empty((size, *sent.shape), dtype=sent.dtype, device=sent.device)
        if sent.numel() > 0:
            rows = _bytes(gathered).view(size, -1)
            dist.all_gather(list(rows.unbind(0)), _bytes(sent), group=self.group)
        return gathered.to(tensor.device)

    def gather_to(self, tensor: torch.Tensor, dst: int) -> torch.Tensor | None:
        sent = tensor.detach().to(self._carrier_device(tensor)).contiguous()
        here = self.index == dst
        gathered = torch.empty((self.size if here else 0, *sent.shape), dtype=sent.dtype, device=sent.device)
        if sent.numel() > 0:
            rows = list(_bytes(gathered).view(self.size, -1).unbind(0)) if here else None
            dist.gather(_bytes(sent), rows, group=self.group, group_dst=dst)
        return gathered.to(tensor.device) if here else None

    def broadcast(self, tensor: torch.Tensor, src: int) -> torch.Tensor:
        sent = tensor.detach().to(self._carrier_device(tensor), copy=True, memory_format=torch.contiguous_format)
        if sent.numel() > 0:
            dist.broadcast(_bytes(sent), group=self.group, group_src=src)
        return sent.to(tensor.device)

    def gather_numbers(self, value: float) -> list[bool | int | float]:
        device = torch.device("cpu") if "cpu" in self._backends else self.device()
        rows = self.gather(torch.tensor(_pack(value), dtype=torch.int64, device=device)).tolist()
        return [_unpack(kind, bits) for kind, bits in rows]

    def gather_objects(self, value: Any) -> list[Any]:
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    def broadcast_object(self, value: Any, src: int) -> Any:
        box = [value]
        dist.broadcast_object_list(box, group=self.group, group_src=src)
        return box[0]

    def barrier(self) -> None:
        device = self.device()
        dist.barrier(group=self.group, device_ids=None if device.index is None else [device.index])

    def among(self, group: Any) -> TorchBackend | None:
        if group is dist.GroupMember.NON_GROUP_MEMBER:
            return None
        inner = copy.copy(self)
        inner.group, inner.size, inner.index = group, dist.get_world_size(group), dist.get_rank(group)
        inner._backends = _backends_of(group)
        return inner

    def new_group(self, ranks: Sequence[int], timeout: timedelta | None) -> Any:
        return dist.new_group(list(ranks), timeout=self.timeout if timeout is None else timeout)

    def split(self, rows: Sequence[Sequence[int]]) -> Any:
        """The group of the row that this rank is in, of several without a rank in common that hold all of them. Those
        of one row call it together.
        """
        assert self.group is not None
        if len(rows) == 1:
            return self.group
        (mine,) = (list(row) for row in rows if self.place.rank in row)
        if self.group.bound_device_id is not None:  # one call splits the communicator of the accelerators for all rows
            return dist.split_group(self.group, [list(row) for row in rows], timeout=self.timeout)
        if "mpi" in self._backends.values():  # where all have to take part in each group
            groups = [dist.new_group(list(row), timeout=self.timeout) for row in rows]
            return next(group for group in groups if group is not dist.GroupMember.NON_GROUP_MEMBER)
        # Only those that are in it meet: with ten thousand ranks a start-up can't wait for all of them at each group.
        return dist.new_group(mine, timeout=self.timeout, use_local_synchronization=True)

    def close(self) -> None:
        if self.owned:
            dist.destroy_process_group()

    def _carrier_device(self, tensor: torch.Tensor) -> torch.device:
        """Where a tensor has to be for this group to send it: where it is, if it can."""
        if tensor.device.type in ("cpu", self.device().type) and tensor.device.type in self._backends:
            return tensor.device
        return torch.device("cpu") if "cpu" in self._backends else self.device()


def _backends_of(group: dist.ProcessGroup) -> dict[str, str]:
    """From "cpu:gloo,cuda:nccl" to {"cpu": "gloo", "cuda": "nccl"}."""
    return dict(pair.split(":") for pair in dist.get_backend_config(group).split(","))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a contiguous tensor as a vector of bytes, which every backend can move whatever the dtype."""
    return tensor.view(-1).view(torch.uint8)


def _pack(value: float) -> tuple[int, int]:
    """A number as its kind and 64 bits."""
    if isinstance(value, bool):
        return 0, int(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise OverflowError(f"a collective carries whole numbers of 64 bits, but got {value}")
        return 1, value
    return 2, struct.unpack("<q", struct.pack("<d", value))[0]


def _unpack(kind: int, bits: int) -> bool | int | float:
    if kind == 0:
        return bool(bits)
    if kind == 1:
        return bits
    number: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return number
