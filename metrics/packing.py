"""How states travel: floats as whole numbers of the same order, tensors of any kind as bytes behind a header."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from leyden.metrics.states import kept_on

ALIGNMENT = 16
"""Every tensor begins at a multiple of this many bytes, so that it can be read in place, whatever its dtype."""


def in_order(values: torch.Tensor) -> torch.Tensor:
    """int64 in the order of the values; NaN comes above all, so that it is the greatest of any numbers beside it."""
    if not values.is_floating_point():
        return values.to(torch.int64)
    wide, whole = _widest(values.device)
    values = values.to(wide)
    bits = torch.where(values.isnan(), torch.nan, values).view(whole)
    return torch.where(bits < 0, bits ^ torch.iinfo(whole).max, bits).to(torch.int64)


def from_order(numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values that `in_order` made these of."""
    if not dtype.is_floating_point:
        return numbers.to(dtype)
    wide, whole = _widest(numbers.device)
    bits = numbers.to(whole)
    return torch.where(bits < 0, bits ^ torch.iinfo(whole).max, bits).view(wide).to(dtype)


def _widest(device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """The widest floats of a device, and whole numbers as wide."""
    wide = kept_on(device.type, torch.float64)
    return wide, torch.int64 if wide == torch.float64 else torch.int32


class Packed(NamedTuple):
    """Bytes: a header, which takes the first `header` of them, and tensors."""

    content: torch.Tensor
    header: int

    @classmethod
    def of(cls, entries: Sequence[Sequence[Any]], device: torch.device) -> Packed:
        """Lists of tensors, and of other things that can be pickled."""
        kinds = [[_Kind.of(each) if isinstance(each, torch.Tensor) else each for each in entry] for entry in entries]
        tensors = [each for entry in entries for each in entry if isinstance(each, torch.Tensor)]
        header = torch.frombuffer(bytearray(pickle.dumps(kinds)), dtype=torch.uint8)
        parts = [_aligned(header.to(device))]
        parts += [_aligned(each.to(device).contiguous().view(-1).view(torch.uint8)) for each in tensors if each.numel()]
        return cls(torch.cat(parts), len(parts[0]))


def unpacked(content: torch.Tensor, header: torch.Tensor) -> list[list[Any]]:
    """What was packed: `content` with its header, and that header on the CPU."""
    begin = len(header)
    entries = []
    for kinds in pickle.loads(header.numpy().tobytes()):
        entry = []
        for kind in kinds:
            if isinstance(kind, _Kind):
                size = kind.bytes()
                entry.append(content[begin : begin + size].view(kind.dtype).view(kind.shape))
                begin += size + -size % ALIGNMENT
            else:
                entry.append(kind)
        entries.append(entry)
    return entries


class _Kind(NamedTuple):
    """What the header says of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Kind:
        return cls(tensor.dtype, tuple(tensor.shape))

    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def _aligned(content: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(content, (0, -len(content) % ALIGNMENT))
