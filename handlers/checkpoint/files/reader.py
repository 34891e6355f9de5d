"""The tensors of a checkpoint on disk: safetensors files, written with the sums that the index has, and read by it.

Checkpoints up to schema 3 have no index: torch.distributed.checkpoint looks into all files and finds what a rank wants.
Its own default storage is not used because reading that one unpickles.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.index import BLOCK, Index, ShardRecord
from leyden.handlers.checkpoint.files.indexed_reader import read_indexed
from leyden.handlers.checkpoint.files.shards import Layout, Piece, bytes_of, file_name, ordered, pieces_of
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.files.validation import check_declared
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.writing import AT_ONCE, write_parts


def write_shard(path: StoragePath, layout: Layout, data: memoryview | Sequence[Piece]) -> ShardRecord:
    """Writes a file of tensors, flushed to disk, and sums up its pieces on the way. Raises OSError."""
    header = layout.header()
    sums: list[tuple[str, ...]] = []

    def parts() -> Iterator[bytes | memoryview]:
        yield header
        for piece in pieces_in(layout, data):
            of_piece = []
            for start in range(0, len(piece), BLOCK):
                digest = hashlib.sha256()
                for at in range(start, min(start + BLOCK, len(piece)), AT_ONCE):
                    part = piece[at : min(at + AT_ONCE, start + BLOCK)]
                    digest.update(part)
                    yield part
                of_piece.append(digest.hexdigest())
            sums.append(tuple(of_piece))

    size = write_parts(path, parts())
    return ShardRecord(path.name, size, len(header), hashlib.sha256(header).hexdigest(), layout, tuple(sums))


def pieces_in(layout: Layout, data: memoryview | Sequence[Piece]) -> Iterator[memoryview]:
    """The bytes of each entry of a layout: of what was copied into a buffer, or of pieces where they are."""
    if isinstance(data, memoryview):
        return (data[start:end] for start, end in layout.spans)
    return bytes_of(data)


def write_tensors(folder: StoragePath, tensors: Mapping[str, torch.Tensor]) -> Index:
    """Writes whole tensors, from where they are, into a file of the folder, flushed to disk. Raises OSError."""
    pieces = ordered(pieces_of(tensors, whole=True))
    return Index.from_bytes(Index.to_bytes("", [write_shard(folder / file_name(0), Layout.of(pieces), pieces)]))


def read_tensors(
    folder: StoragePath,
    wanted: Iterable[TensorInfo],
    like: Mapping[str, torch.Tensor] | None = None,
    index: Index | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors by name, in new memory: on the CPU, or sharded over ranks as the tensor of that name in `like` is.
    Without an index all files are looked into.

    Raises CheckpointDamagedError where the files don't hold what is wanted.
    """
    if index is not None:
        return read_indexed(folder, index, wanted, like)
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    sharded = like or {}
    wanted = list(wanted)
    loaded: dict[str, torch.Tensor] = {}
    reader = _reader(folder)
    try:
        metadata = reader.read_metadata()
        check_declared(wanted, metadata.state_dict_metadata)
    except Exception as error:  # whatever can be wrong with the files
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointDamagedError(f"the tensors of {folder} can't be read: {reason}") from error
    reader.read_metadata = lambda *_, **__: metadata  # read just now
    try:
        for info in wanted:
            if info.name in sharded:
                loaded[info.name] = torch.empty_like(sharded[info.name], dtype=info.dtype)
            elif info.dtype.is_complex:
                loaded[info.name] = torch.empty((*info.shape, 2), dtype=info.dtype.to_real())
            else:
                loaded[info.name] = torch.empty(info.shape, dtype=info.dtype)
        with _alone_without_a_warning():
            load(loaded, storage_reader=reader, no_dist=True)
    except (CheckpointException, RuntimeError, OverflowError) as error:  # the latter where no memory is that large
        cause = _cause(error) if isinstance(error, CheckpointException) else error
        reason = f"{type(cause).__name__}: {cause}"
        raise CheckpointDamagedError(f"the tensors of {folder} can't be read: {reason}") from error
    for info in wanted:
        if info.dtype.is_complex and info.name not in sharded:
            loaded[info.name] = torch.view_as_complex(loaded[info.name])
    return loaded


def _reader(folder: StoragePath) -> Any:
    if isinstance(folder, Path):
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        return HuggingFaceStorageReader(str(folder))
    from leyden.handlers.checkpoint.files.remote_reader import RangeReader

    return RangeReader(folder)


@contextmanager
def _alone_without_a_warning() -> Iterator[None]:
    """torch warns whenever one process saves or loads by itself, which is what is asked for here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _cause(error: BaseException) -> Exception:
    """The first rank's own exception out of torch's collection of them, which no `except Exception` would catch."""
    failures = getattr(error, "failures", {})
    for _, (cause, _) in sorted(failures.items()):
        if isinstance(cause, Exception):
            return cause
    return RuntimeError(str(error))
