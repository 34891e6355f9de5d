"""What one rank has for itself, in a file of its own: nobody else has to read it, nor is anything of it gathered.

It begins as a file of safetensors, whose metadata hold the data as JSON, and ends with the SHA-256 of all before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.codec import Json, decode, tensors_in
from leyden.handlers.checkpoint.files.shards import OF_NAMES, Layout
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo, is_shape
from leyden.handlers.checkpoint.files.validation import check_rank, parse_json, read_text_file
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.writing import write_parts

_SUM = 32
_LONGEST_HEADER = 2**28


def rank_file_name(rank: int) -> str:
    """The file of a rank's own."""
    return f"rank-{rank:05d}.state"


def write_rank_file(
    path: StoragePath, token: str, rank: int, state: Json, layout: Layout, data: Iterable[memoryview]
) -> None:
    """Writes JSON with the tensors that it refers to. `token`: that of the checkpoint's index. Raises OSError."""
    digest = hashlib.sha256()
    told = json.dumps({"token": token, "rank": rank, "state": state}, separators=(",", ":"), allow_nan=False)

    def parts() -> Iterable[bytes | memoryview]:
        header = layout.header({"leyden": told})
        digest.update(header)
        yield header
        for part in data:
            digest.update(part)
            yield part
        yield digest.digest()

    write_parts(path, parts())


def read_rank_file(
    folder: StoragePath, token: str, rank: int, *, tensors: bool = True, gradients: bool = True
) -> dict[str, Any]:
    """What a rank had for itself; without `tensors`, what is known of each stands in its place. `gradients=False`
    leaves out those of an open window.

    Raises CheckpointDamagedError if it is missing, of another checkpoint, or not as it was written.
    """
    path = folder / rank_file_name(rank)
    try:
        data = _read(path)
        if len(data) < 8 + _SUM or hashlib.sha256(memoryview(data)[:-_SUM]).digest() != data[-_SUM:]:
            raise CheckpointDamagedError(f"{path} was altered, or cut short: it does not end with its SHA-256")
        end = 8 + int.from_bytes(data[:8], "little")
        if end > min(len(data) - _SUM, _LONGEST_HEADER):
            raise ValueError(f"its header would have {end} bytes")
        header = parse_json(bytes(data[8:end]))
        told = parse_json(header["__metadata__"]["leyden"].encode())
        if (told["token"], told["rank"]) != (token, rank):
            raise CheckpointDamagedError(f"{path} is of another rank or another checkpoint")
        own = decode(told["state"], lambda info: info)
        check_rank(own, rank)
        state = told["state"] if gradients else without_gradients(told["state"])
        if not tensors:
            return decode(state, lambda info: info)  # type: ignore[no-any-return]
        infos = tensors_in(state).values()
        loaded = {info.name: _tensor(info, header.get(info.name), data, end) for info in infos}
        return decode(state, lambda info: loaded[info.name])  # type: ignore[no-any-return]
    except CheckpointDamagedError:
        raise
    except FileNotFoundError:
        raise CheckpointDamagedError(f"{folder} lacks its file {path.name}") from None
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointDamagedError(f"{path} can't be read: {type(error).__name__}: {error}") from None


def without_gradients(own: Json) -> Json:
    """The JSON of a rank's own less the gradients of its open windows."""
    engine = own.get("engine", {})
    lean = {name: window | {"gradients": {}} for name, window in engine.get("updates", {}).items()}
    return own | {"engine": engine | {"updates": lean}} if lean else own


def _read(path: StoragePath) -> bytearray:
    if isinstance(path, Path) and path.is_file() and not path.is_symlink():
        data = bytearray(path.stat().st_size)
        with path.open("rb", buffering=0) as file:
            view = memoryview(data)
            while view and (count := file.readinto(view)):
                view = view[count:]
        return data
    return bytearray(read_text_file(path))


def _tensor(info: TensorInfo, entry: Any, data: bytearray, after: int) -> torch.Tensor:
    if not isinstance(entry, dict) or not is_shape(entry.get("shape")):
        raise ValueError(f"{info.name} is not in the file")
    dtype, shape = OF_NAMES[entry["dtype"]], tuple(entry["shape"])
    first, end = entry["data_offsets"]
    size = math.prod(shape) * dtype.itemsize
    if (
        (shape, dtype) != info.stored_in(dtype)
        or end - first != size
        or not 0 <= first <= end <= len(data) - after - _SUM
    ):
        raise ValueError(f"{info.name} should be {info}, and is {TensorInfo(info.name, shape, dtype)} in the file")
    found = torch.empty(shape, dtype=dtype)
    if size:
        found.reshape(-1).view(torch.uint8).copy_(
            torch.frombuffer(data, dtype=torch.uint8, count=size, offset=after + first)
        )
    return torch.view_as_complex(found) if info.dtype.is_complex and not dtype.is_complex else found
