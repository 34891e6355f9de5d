"""The index of a checkpoint: of each tensor, which bytes of which file hold what part of it, and their SHA-256.

A rank reads it, and then only those bytes that it needs. A piece of more than BLOCK bytes has a sum for each block, so
that who needs a part of it need not read all of it.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leyden.handlers.checkpoint.files.shards import Layout
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo, dtype_name, is_shape, to_dtype
from leyden.handlers.checkpoint.files.validation import is_count, parse_json

INDEX = "index.json"
BLOCK = 16 * 2**20
"""Bytes for which there is one sum."""
_SUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A file of tensors: its name, its size, and size and SHA-256 of what stands in it before the data.

    layout, sums: what lies in it; the sums of each entry's blocks.
    """

    name: str
    bytes: int
    header_bytes: int
    header_sha256: str
    layout: Layout
    sums: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of tensors, as the index has it."""

    name: str
    bytes: int
    header_bytes: int
    header_sha256: str


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """A part of a tensor in a file: from which byte on, of which shape, from which offsets of the whole on."""

    file: StoredFile
    start: int
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    sums: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor with all its pieces."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: tuple[StoredPiece, ...]


@dataclass(frozen=True)
class Index:
    """token: a word of this checkpoint alone, which what ranks have for themselves repeats. own: what there is in the
    ranks' own files for another number of ranks to share out, and how; None if that is not known.
    """

    token: str
    files: tuple[StoredFile, ...]
    tensors: Mapping[str, StoredTensor]
    own: Mapping[str, str] | None = None

    @staticmethod
    def to_bytes(token: str, shards: Iterable[ShardRecord], own: Mapping[str, str] | None = None) -> bytes:
        """The index of files that were written."""
        files: list[Any] = []
        tensors: dict[str, dict[str, Any]] = {}
        for shard in shards:
            data = shard.header_bytes
            for (name, dtype, shape, offsets), (start, _), sums in zip(
                shard.layout.entries, shard.layout.spans, shard.sums, strict=True
            ):
                entry = tensors.setdefault(name, {"dtype": dtype_name(dtype), "shape": list(shape), "pieces": []})
                ends = [offset + size for offset, size in zip(offsets, shape, strict=True)]
                entry["shape"] = list(map(max, entry["shape"], ends))
                entry["pieces"].append([len(files), data + start, *offsets, *shape, *sums])
            files.append([shard.name, shard.bytes, shard.header_bytes, shard.header_sha256])
        content = {"token": token, "files": files, "tensors": tensors, "own": own}
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """Raises ValueError for what contradicts itself, or leads out of the folder."""
        try:
            content = parse_json(data)
            files = tuple(_file(*values) for values in content["files"])
            tensors = {name: _tensor(name, values, files) for name, values in content["tensors"].items()}
            if not isinstance(content["token"], str) or len({file.name for file in files}) < len(files):
                raise ValueError("it has no token, or names a file twice")
            own = content.get("own")
            if own is not None and not all(isinstance(way, str) for way in own.values()):
                raise ValueError(f"of what ranks have for themselves it says {own!r}, where words should be")
            return cls(content["token"], files, tensors, own)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"it is no index: {type(error).__name__}: {error}") from None

    def check(self, wanted: Iterable[TensorInfo]) -> None:
        """Raises ValueError unless the files have all of each tensor that is wanted."""
        for info in wanted:
            found = self.tensors.get(info.name)
            if found is None:
                raise ValueError(f"{info.name} is not in the files")
            if (found.shape, found.dtype) != info.stored_in(found.dtype):
                there = TensorInfo(info.name, found.shape, found.dtype)
                raise ValueError(f"{info.name} should be {info}, and is {there} in the files")


def _file(name: Any, size: Any, header: Any, digest: Any) -> StoredFile:
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise ValueError(f"it names a file {name!r}, where only one beside it, *.safetensors, may stand")
    if not (is_count(size) and is_count(header) and 8 <= header <= size and _is_sum(digest)):
        raise ValueError(f"it has no size or sum for the file {name}")
    return StoredFile(name, size, header, digest)


def _tensor(name: str, values: Any, files: tuple[StoredFile, ...]) -> StoredTensor:
    dtype, shape = to_dtype(values["dtype"]), values["shape"]
    if not is_shape(shape):
        raise ValueError(f"{name} has the shape {shape!r}")
    pieces = tuple(_piece(name, each, files, shape, dtype.itemsize) for each in values["pieces"])
    held = sum(math.prod(piece.shape) for piece in pieces)
    if held != math.prod(shape):
        raise ValueError(f"{name} has {math.prod(shape)} numbers, of which the files hold {held}")
    if not _tile(pieces, shape):
        raise ValueError(f"the pieces of {name} lie over each other, and leave other places of it empty")
    return StoredTensor(dtype, tuple(shape), pieces)


def _tile(pieces: Sequence[StoredPiece], whole: Sequence[int]) -> bool:
    """Whether pieces that lie in the whole, and have as many numbers, each have places of their own.

    They do if their corners, with the signs of an integral over a box, add up to those of the whole: in a tiling each
    inner corner cancels out.
    """
    boxes = [piece for piece in pieces if 0 not in piece.shape]
    if len(boxes) < 2:
        return True
    split = [dim for dim, size in enumerate(whole) if any(piece.shape[dim] < size for piece in boxes)]
    corners: Counter[tuple[int, ...]] = Counter()

    def add(sign: int, offsets: Sequence[int], shape: Sequence[int]) -> None:
        ends = [((offsets[dim], 1), (offsets[dim] + shape[dim], -1)) for dim in split]
        for corner in itertools.product(*ends):
            corners[tuple(at for at, _ in corner)] += sign * math.prod(each for _, each in corner)

    for piece in boxes:
        add(1, piece.offsets, piece.shape)
    add(-1, [0] * len(whole), whole)
    return not any(corners.values())


def _piece(name: str, values: Any, files: tuple[StoredFile, ...], whole: list[int], itemsize: int) -> StoredPiece:
    number, start, *rest = values
    dims = len(whole)
    offsets, shape, sums = rest[:dims], rest[dims : 2 * dims], rest[2 * dims :]
    if not (is_count(number) and is_count(start) and is_shape(offsets) and is_shape(shape) and len(shape) == dims):
        raise ValueError(f"a piece of {name} is {values!r}")
    if any(offset + size > total for offset, size, total in zip(offsets, shape, whole, strict=True)):
        raise ValueError(f"a piece of {name} of shape {shape} lies at {offsets}, out of {whole}")
    file = files[number]
    size = math.prod(shape) * itemsize
    if not file.header_bytes <= start <= start + size <= file.bytes:
        raise ValueError(f"{file.name} has no room for {name} of shape {shape} from {start} to {start + size}")
    if len(sums) != math.ceil(size / BLOCK) or not all(map(_is_sum, sums)):
        raise ValueError(f"a piece of {name} has {len(sums)} sums, and {size} bytes")
    return StoredPiece(file, start, tuple(offsets), tuple(shape), tuple(sums))


def _is_sum(value: Any) -> bool:
    return isinstance(value, str) and _SUM.fullmatch(value) is not None
