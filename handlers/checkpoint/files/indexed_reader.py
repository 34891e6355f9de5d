"""Tensors of a checkpoint by its index: of each file, the bytes that are needed, whose sums are checked on the way."""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import torch

from leyden.distributed.compat import chunk_of
from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.index import BLOCK, Index, StoredFile, StoredPiece
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.store.paths import RemotePath, StoragePath

AT_ONCE = 64 * 2**20
"""Bytes that are asked of a store together, by several connections at once."""


_Places = list[tuple[int, int]]
"""From where to where, dimension by dimension."""


class _Region(NamedTuple):
    """A part of a tensor, and the memory that it is to be read into."""

    offsets: tuple[int, ...]
    target: torch.Tensor


class _Request(NamedTuple):
    """Blocks of a piece, from one byte of its file to another, and the regions that have a part in them, each with the
    places of the piece that it has.
    """

    piece: StoredPiece
    dtype: torch.dtype
    first_block: int
    start: int
    end: int
    parts: tuple[tuple[_Region, _Places], ...]


def read_indexed(
    folder: StoragePath, index: Index, wanted: Iterable[TensorInfo], like: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors by name, in new memory: on the CPU, or sharded over ranks as the tensor of that name in `like` is.

    Raises CheckpointDamagedError where the files don't hold what is wanted, as it was written.
    """
    wanted = list(wanted)
    loaded: dict[str, torch.Tensor] = {}
    requests: dict[StoredFile, list[_Request]] = {}
    try:
        index.check(wanted)
        for info in wanted:
            live = (like or {}).get(info.name)
            loaded[info.name], regions = _room(info, live, index.tensors[info.name].dtype)
            for request in _requests(index, info, regions):
                requests.setdefault(request.piece.file, []).append(request)
        for file, of_file in requests.items():
            _read_file(folder, file, sorted(of_file, key=lambda each: each.start))
    except CheckpointDamagedError:
        raise
    except (OSError, ValueError, RuntimeError, OverflowError) as error:  # RuntimeError where no memory is that large
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointDamagedError(f"the tensors of {folder} can't be read: {reason}") from error
    return loaded


def verify_shards(folder: StoragePath, index: Index) -> None:
    """Reads all files of tensors. Raises CheckpointDamagedError for the first that is not as it was written."""
    requests: dict[str, list[_Request]] = {file.name: [] for file in index.files}
    for tensor in index.tensors.values():
        for piece in tensor.pieces:
            end = piece.start + _size(piece, tensor.dtype)
            requests[piece.file.name].append(_Request(piece, tensor.dtype, 0, piece.start, end, ()))
    for file in index.files:
        pieces = sorted(requests[file.name], key=lambda each: (each.start, each.end))
        _read_file(folder, file, pieces)
        reached = file.header_bytes
        for start, end in [*((each.start, each.end) for each in pieces), (file.bytes, file.bytes)]:
            if start != reached:
                raise CheckpointDamagedError(f"{folder / file.name} has bytes from {reached} on that no sum is of")
            reached = end


def _room(info: TensorInfo, live: torch.Tensor | None, stored: torch.dtype) -> tuple[torch.Tensor, list[_Region]]:
    """New memory for a tensor, and the regions of it that this rank has."""
    if live is None:
        whole = torch.empty(info.shape, dtype=info.dtype)
        parts = [((0,) * len(info.shape), whole)]
    else:
        whole = torch.empty_like(live, dtype=info.dtype)
        mine: torch.Tensor = whole.to_local()  # type: ignore[attr-defined]
        parts = [(tuple(chunk_of(whole).offsets), mine)] if mine.numel() > 0 else []
    if info.dtype.is_complex and not stored.is_complex:
        parts = [((*offsets, 0), torch.view_as_real(local)) for offsets, local in parts]
    return whole, [_Region(offsets, local.detach()) for offsets, local in parts if local.numel() > 0]


def _requests(index: Index, info: TensorInfo, regions: list[_Region]) -> Iterator[_Request]:
    stored = index.tensors[info.name]
    for piece in stored.pieces:
        size = _size(piece, stored.dtype)
        parts = tuple((region, places) for region in regions if (places := _overlap(piece, region)) is not None)
        if size == 0 or not parts:
            continue
        row = size // piece.shape[0] if piece.shape else size
        spans = [places[0] for _, places in parts] if piece.shape else [(0, 1)]
        first = min(start for start, _ in spans) * row // BLOCK
        end = min(size, math.ceil(max(end for _, end in spans) * row / BLOCK) * BLOCK)
        start = piece.start + first * BLOCK
        yield _Request(piece, stored.dtype, first, start, piece.start + end, parts)


def _overlap(piece: StoredPiece, region: _Region) -> _Places | None:
    """Which places of the piece the region has, dimension by dimension; None if it has none."""
    found = []
    for at, size, start, count in zip(piece.offsets, piece.shape, region.offsets, region.target.shape, strict=True):
        first, end = max(at, start), min(at + size, start + count)
        if first >= end:
            return None
        found.append((first - at, end - at))
    return found


def _size(piece: StoredPiece, dtype: torch.dtype) -> int:
    return math.prod(piece.shape) * dtype.itemsize


def _read_file(folder: StoragePath, file: StoredFile, requests: list[_Request]) -> None:
    path = folder / file.name
    for request, data in zip([None, *requests], _contents(path, file, requests), strict=True):
        if request is None:
            if hashlib.sha256(data).hexdigest() != file.header_sha256:
                raise CheckpointDamagedError(f"{path} was altered: its header does not have the SHA-256 in the index")
            continue
        view = memoryview(data)
        for number, start in enumerate(range(0, len(data), BLOCK), request.first_block):
            found = hashlib.sha256(view[start : start + BLOCK]).hexdigest()
            if found != request.piece.sums[number]:
                at = request.start + start
                raise CheckpointDamagedError(
                    f"{path} was altered: its bytes from {at} on do not have the SHA-256 in the index"
                )
        if request.parts:
            _copy(request, data)


def _copy(request: _Request, data: bytearray) -> None:
    piece, dtype = request.piece, request.dtype
    if not piece.shape:
        ((region, _),) = request.parts
        region.target.copy_(torch.frombuffer(data, dtype=dtype)[0])
        return
    row = _size(piece, dtype) // piece.shape[0]
    for region, places in request.parts:
        (first, end), *rest = places
        begins = first * row - request.first_block * BLOCK
        rows = torch.frombuffer(data, dtype=torch.uint8)[begins : begins + (end - first) * row]
        values = rows.view(dtype).view(end - first, *piece.shape[1:])
        part = (slice(None), *(slice(*each) for each in rest))
        place = tuple(
            slice(at + each[0] - start, at + each[1] - start)
            for at, start, each in zip(piece.offsets, region.offsets, places, strict=True)
        )
        region.target[place].copy_(values[part])


def _contents(path: StoragePath, file: StoredFile, requests: list[_Request]) -> Iterator[bytearray]:
    """The header of a file, and what is asked for, one after the other."""
    spans = [(0, file.header_bytes), *((request.start, request.end) for request in requests)]
    if isinstance(path, RemotePath):
        yield from _fetched(path, file, spans)
        return
    with _opened(path, file) as opened:
        for start, end in spans:
            data = bytearray(end - start)
            opened.seek(start)
            if opened.readinto(data) != len(data):  # type: ignore[attr-defined]
                raise CheckpointDamagedError(f"{path} is cut short")
            yield data


def _fetched(path: RemotePath, file: StoredFile, spans: list[tuple[int, int]]) -> Iterator[bytearray]:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise CheckpointDamagedError(f"{path.parent} lacks its file {path.name}") from None
    if size != file.bytes:
        raise CheckpointDamagedError(f"{path} has {size} bytes instead of {file.bytes}")
    while spans:
        batch = [spans.pop(0)]
        while spans and sum(end - start for start, end in batch) + spans[0][1] - spans[0][0] <= AT_ONCE:
            batch.append(spans.pop(0))
        asked = [(start, end) for start, end in batch if end > start]
        starts, ends = ([each[place] for each in asked] for place in (0, 1))
        found = iter(path.filesystem.cat_ranges([path.key] * len(asked), starts, ends, on_error="raise"))
        for start, end in batch:
            data = bytearray(next(found)) if end > start else bytearray()
            if len(data) != end - start:
                raise CheckpointDamagedError(f"{path} is cut short")
            yield data


@contextmanager
def _opened(path: Path, file: StoredFile) -> Iterator[IO[bytes]]:
    if path.is_symlink() or not path.is_file():
        raise CheckpointDamagedError(f"{path.parent} lacks its file {path.name}")
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.bytes:
        raise CheckpointDamagedError(f"{path} has {found.st_size} bytes instead of {file.bytes}")
    with path.open("rb", buffering=0) as opened:
        yield opened
