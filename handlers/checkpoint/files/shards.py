"""Who writes what of the tensors, decided by each rank alone, where in its file it lies, and the copy in host memory
that training waits for.

A rank's file has safetensors' format, with the offsets of shards as torch.distributed.checkpoint notes them, whose
HuggingFaceStorageReader reads it (https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from leyden.distributed.compat import chunk_of, foreach_copy_

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
"""The dtypes of the format, by its names for them. Other complex numbers are written as pairs of real ones."""
OF_NAMES = {name: dtype for dtype, name in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor, or this rank's part of one, which begins at `offsets` of the whole."""

    name: str
    tensor: torch.Tensor
    offsets: tuple[int, ...]


def pieces_of(tensors: Mapping[str, torch.Tensor], *, whole: bool) -> list[Piece]:
    """What this rank writes of the tensors: its shards, if no other replica has them to write, and with `whole` those
    that are not spread.

    Raises TypeError for a dtype that the files can't hold, and for sums that are not reduced yet.
    """
    from torch.distributed.tensor import DTensor

    pieces = []
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            pieces += _shard(name, tensor)
        elif whole:
            value = tensor.detach()
            value = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
            pieces.append(Piece(name, value, (0,) * value.ndim))
    for piece in pieces:
        if piece.tensor.dtype not in DTYPES:
            raise TypeError(f"{piece.name} is of {piece.tensor.dtype}, which safetensors' files can't hold")
    return pieces


def _shard(name: str, tensor: torch.Tensor) -> list[Piece]:
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    place = tensor.device_mesh.get_coordinate()
    if place is None:  # a mesh that this rank is no part of
        return []
    if any(placement.is_partial() for placement in tensor.placements):
        raise TypeError(f"{name} is a sum that the ranks have not added up yet (a Partial placement)")
    replicas = [i for i, placement in zip(place, tensor.placements, strict=True) if placement.is_replicate()]
    local = tensor.to_local().detach()
    if any(replicas) or (local.numel() == 0 and tensor.numel() > 0):
        return []
    chunk = chunk_of(tensor)
    return [Piece(name, local, tuple(chunk.offsets))]


@dataclass(frozen=True)
class Layout:
    """Where pieces lie in the data of a file: those of the largest items first, so that each is aligned.

    entries: name, dtype, shape and offsets in the whole tensor of each; spans: its first byte and the one after it.
    """

    entries: tuple[tuple[str, torch.dtype, tuple[int, ...], tuple[int, ...]], ...]
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Layout:
        """The layout of pieces that are in `ordered` order."""
        spans, start = [], 0
        entries = []
        for piece in pieces:
            entries.append((piece.name, piece.tensor.dtype, tuple(piece.tensor.shape), piece.offsets))
            end = start + piece.tensor.numel() * piece.tensor.itemsize
            spans.append((start, end))
            start = end
        return cls(tuple(entries), tuple(spans))

    @property
    def size(self) -> int:
        """Bytes of all data."""
        return self.spans[-1][1] if self.spans else 0

    def header(self, more: Mapping[str, str] | None = None) -> bytes:
        """What stands in the file before the data. `more`: further metadata."""
        offsets = {name: {"saved_offsets": list(there)} for name, _, _, there in self.entries}
        content: dict[str, object] = {
            "__metadata__": {
                "DCP_SHARDING_INFO": json.dumps(offsets),
                "DCP_VERSION": "1.0",
                "format": "pt",
                **(more or {}),
            }
        }
        for (name, dtype, shape, _), span in zip(self.entries, self.spans, strict=True):
            content[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": span}
        text = json.dumps(content, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def ordered(pieces: Iterable[Piece]) -> list[Piece]:
    """In the order in which a file has them."""
    return sorted(pieces, key=lambda piece: (-piece.tensor.itemsize, piece.name))


def file_name(rank: int) -> str:
    """The file in which a rank writes its pieces, named as torch.distributed.checkpoint names it."""
    return f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors"


class HostBuffer:
    """Memory that holds what is to be written as it lies in the file; used again from save to save.

    It is pinned where tensors come from a GPU, so that they are copied at the bus's full speed. It grows to the largest
    state there was, and is used again only when the write before has ended.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._layout: Layout | None = None
        self._views: list[torch.Tensor] = []

    def fill(self, pieces: Sequence[Piece], layout: Layout) -> memoryview:
        """Copies the pieces, and returns once they are there: they may be changed from then on."""
        pinned = any(piece.tensor.is_cuda for piece in pieces)
        if self._memory.numel() < layout.size or (pinned and not self._memory.is_pinned()):
            self._views = []
            self._memory = torch.empty(layout.size, dtype=torch.uint8, pin_memory=pinned)
            self._layout = None
        if layout != self._layout:
            self._views = [
                self._memory[start:end].view(dtype).view(shape)
                for (_, dtype, shape, _), (start, end) in zip(layout.entries, layout.spans, strict=True)
            ]
            self._layout = layout
        if pieces:
            foreach_copy_(self._views, [piece.tensor for piece in pieces], non_blocking=pinned)
        for device in {piece.tensor.device for piece in pieces if pinned and not piece.tensor.is_cpu}:
            torch.accelerator.current_stream(device).synchronize()
        return self._memory.numpy().data[: layout.size]


def bytes_of(pieces: Sequence[Piece]) -> Iterator[memoryview]:
    """The same bytes without a copy of all of them: one piece after the other, as they are when they are asked for."""
    for piece in pieces:
        tensor = piece.tensor.resolve_neg().to("cpu", memory_format=torch.contiguous_format).contiguous()
        yield tensor.reshape(-1).view(torch.uint8).numpy().data
