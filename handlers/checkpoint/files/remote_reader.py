"""Tensors out of safetensors files in any file system, of which each rank fetches only the bytes it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from leyden.handlers.checkpoint.files.shards import OF_NAMES
from leyden.handlers.checkpoint.files.tensor_info import is_shape
from leyden.handlers.checkpoint.files.validation import parse_json
from leyden.handlers.checkpoint.store.paths import RemotePath

LONGEST_HEADER = 100_000_000
"""Bytes; the limit that safetensors itself has."""
AT_ONCE = 64 * 2**20
"""Bytes that are asked for together, by several connections at once."""


class _Stored(NamedTuple):
    key: str
    first: int
    end: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class RangeReader(StorageReader):
    """Reads what HuggingFaceStorageReader of torch.distributed.checkpoint reads from a local folder.

    Raises ValueError for files that are none of safetensors.
    """

    def __init__(self, folder: RemotePath) -> None:
        self.folder = folder
        self._stored: dict[MetadataIndex, _Stored] = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        chunks: dict[str, list[ChunkStorageMetadata]] = {}
        dtypes: dict[str, torch.dtype] = {}
        for path in self.folder.glob("*.safetensors"):
            for name, offsets, stored in _tensors_of(path):
                self._stored[MetadataIndex(name, torch.Size(offsets))] = stored
                chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(stored.shape))
                chunks.setdefault(name, []).append(chunk)
                dtypes[name] = stored.dtype
        described: dict[str, Any] = {}
        for name, of_name in chunks.items():
            ends = [[start + n for start, n in zip(each.offsets, each.sizes, strict=True)] for each in of_name]
            size = torch.Size(map(max, zip(*ends, strict=True)))
            described[name] = TensorStorageMetadata(TensorProperties(dtype=dtypes[name]), size, of_name)
        return Metadata(state_dict_metadata=described, storage_meta=StorageMeta())

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for items in _batches([(item, self._stored[item.storage_index]) for item in plan.items]):
            wanted = [(stored.key, stored.first, stored.end) for _, stored in items if stored.end > stored.first]
            keys, firsts, ends = map(list, zip(*wanted, strict=True)) if wanted else ([], [], [])
            found = iter(self.folder.filesystem.cat_ranges(keys, firsts, ends, on_error="raise"))
            for item, stored in items:
                data = bytearray(next(found)) if stored.end > stored.first else bytearray()
                if len(data) != stored.end - stored.first:
                    raise ValueError(f"{stored.key} is cut short")
                self._put(planner, item, _tensor(data, stored))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _put(self, planner: LoadPlanner, item: ReadItem, whole: torch.Tensor) -> None:
        part = tuple(slice(a, a + n) for a, n in zip(item.storage_offsets, item.lengths, strict=True))
        target = planner.resolve_tensor(item).detach()
        target.copy_(whole[part].reshape(target.shape))
        planner.commit_tensor(item, target)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        return

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def reset(self, checkpoint_id: Any = None) -> None:
        return

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return isinstance(checkpoint_id, RemotePath)


def _tensors_of(path: RemotePath) -> Iterator[tuple[str, tuple[int, ...], _Stored]]:
    """Name, offsets in the whole tensor, and place of what a file has."""
    fetch = path.filesystem.cat_file
    length = int.from_bytes(fetch(path.key, start=0, end=8), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"{path} is no file of safetensors: its header would have {length} bytes")
    try:
        header = parse_json(fetch(path.key, start=8, end=8 + length))
        sharding = parse_json(header.pop("__metadata__", {}).get("DCP_SHARDING_INFO", "{}").encode())
        size = path.stat().st_size
        for name, entry in header.items():
            first, end = (8 + length + offset for offset in entry["data_offsets"])
            shape, dtype = tuple(entry["shape"]), OF_NAMES[entry["dtype"]]
            fits = is_shape(entry["shape"]) and end - first == math.prod(shape) * dtype.itemsize
            if not fits or not 8 + length <= first <= end <= size:
                raise ValueError(f"{path} has no room for {name} of shape {list(shape)} from {first} to {end}")
            offsets = tuple(sharding[name]["saved_offsets"]) if name in sharding else (0,) * len(shape)
            yield name, offsets, _Stored(path.key, first, end, shape, dtype)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of safetensors: {type(error).__name__}: {error}") from None


def _tensor(data: bytearray, stored: _Stored) -> torch.Tensor:
    if not data:
        return torch.empty(stored.shape, dtype=stored.dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(stored.dtype).reshape(stored.shape)


def _batches(items: list[tuple[ReadItem, _Stored]]) -> Iterator[list[tuple[ReadItem, _Stored]]]:
    batch: list[tuple[ReadItem, _Stored]] = []
    size = 0
    for item, stored in items:
        batch.append((item, stored))
        size += stored.end - stored.first
        if size >= AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
