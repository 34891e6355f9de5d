"""Weights alone in safetensors files, as other libraries read and write them: one file, or shards with an index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.tensor_info import identity
from leyden.handlers.checkpoint.files.validation import parse_json

SUFFIX = ".safetensors"
INDEX = ".index.json"
"""What the name of an index adds to that of the one file."""
LARGEST_INDEX = 2**28


@dataclass(frozen=True)
class ShapeOnly:
    """A tensor of a file that was not loaded."""

    shape: tuple[int, ...]


def write_weights(
    file: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], shard_bytes: int | None
) -> Path:
    """Writes tensors into `file`, or beside it into shards of at most `shard_bytes` bytes and an index; gives what is
    to be named to read them: the file or the index. What had the name before is there until the new one is whole.

    Tensors that are the same memory are written once; the metadata has the other names, each with that one's.
    """
    whole, tied = _apart(tensors)
    metadata = {"format": "pt", **metadata, **tied}
    shards = _shards(whole, shard_bytes)
    index = file.with_name(file.name + INDEX)
    if len(shards) == 1:
        with _replacing(file) as (temporary,):
            _write(temporary, whole, metadata)
        index.unlink(missing_ok=True)
        return file
    stem = file.name.removesuffix(SUFFIX)
    files = [file.with_name(f"{stem}-{n:05d}-of-{len(shards):05d}{SUFFIX}") for n in range(1, len(shards) + 1)]
    places = {name: shard.name for names, shard in zip(shards, files, strict=True) for name in names}
    size = sum(tensor.nbytes for tensor in whole.values())
    text = json.dumps({"metadata": {"total_size": size, **metadata}, "weight_map": places}, indent=2)
    with _replacing(*files, index) as (*temporaries, of_index):
        for names, temporary in zip(shards, temporaries, strict=True):
            _write(temporary, {each: whole[each] for each in names}, metadata)
        of_index.write_text(text)
    file.unlink(missing_ok=True)
    return index


def find_weight_file(path: Path) -> Path | None:
    """The file of weights, or the index of several, that a path stands for; None if it is neither."""
    if path.name.endswith((SUFFIX, SUFFIX + INDEX)):
        index = path.with_name(path.name + INDEX)
        return index if not path.exists() and index.is_file() else path
    names = (f"model{SUFFIX}", f"model{SUFFIX}{INDEX}") if path.is_dir() else ()
    return next((path / name for name in names if (path / name).is_file()), None)


class WeightFile:
    """The weights in a file, or in the files that an index names, by name; shapes are read, the rest when asked for.

    Raises CheckpointDamagedError for what can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self.shapes: dict[str, ShapeOnly] = {}
        self._files = [path]
        if path.name.endswith(INDEX):
            named = _read_index(path)
            self._files = [path.with_name(name) for name in dict.fromkeys(named.values())]
        for file in self._files:
            with _opened(file) as opened:
                names: list[str] = opened.keys()
                self.metadata |= opened.metadata() or {}
                self.shapes |= {name: ShapeOnly(tuple(opened.get_slice(name).get_shape())) for name in names}
        if path.name.endswith(INDEX) and named.keys() != self.shapes.keys():
            differ = sorted(named.keys() ^ self.shapes.keys())
            raise CheckpointDamagedError(f"{path} and its files differ in what they hold: {', '.join(differ[:3])}")
        self.tied = {
            name: kept for name, kept in self.metadata.items() if kept in self.shapes and name not in self.shapes
        }
        self.shapes |= {name: self.shapes[kept] for name, kept in self.tied.items()}

    def load(self) -> dict[str, torch.Tensor]:
        """All of them, on the CPU."""
        loaded: dict[str, torch.Tensor] = {}
        for file in self._files:
            with _opened(file) as opened:
                names: list[str] = opened.keys()
                loaded |= {name: opened.get_tensor(name) for name in names}
        return loaded | {name: loaded[kept] for name, kept in self.tied.items()}


def _read_index(path: Path) -> dict[str, str]:
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        if path.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"it has more than {LARGEST_INDEX} bytes")
        places = parse_json(path.read_bytes())["weight_map"]
        for name in places.values():
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(SUFFIX):
                raise ValueError(f"it names a file {name!r}, where only one beside it, *{SUFFIX}, may stand")
        return dict(places)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointDamagedError(f"{path} is no index of weights: {type(error).__name__}: {error}") from None


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():  # links are: Hugging Face's cache is made of them; pipes, which one waits for, are not
        raise CheckpointDamagedError(f"{file} can't be read: there is no such file")
    try:
        with safe_open(str(file), framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError, RuntimeError, OverflowError, KeyError) as error:
        raise CheckpointDamagedError(f"{file} can't be read: {type(error).__name__}: {error}") from None


def _apart(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors on the CPU with no memory in common, and the names that stand for the same as another one."""
    whole: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[Any, str] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        key = identity(tensor.detach())
        if key is not None and key in first:
            tied[name] = first[key]
            continue
        if key is not None:
            first[key] = name
        value = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        pointer = value.untyped_storage().data_ptr()
        whole[name] = value.clone() if pointer in memory or value.untyped_storage().nbytes() > value.nbytes else value
        memory |= {pointer} - {0}  # empty tensors have no memory
    return whole, tied


def _shards(tensors: Mapping[str, torch.Tensor], shard_bytes: int | None) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, tensor in tensors.items():
        if room is not None and shard_bytes is not None:
            if tensor.nbytes > room and shards[-1]:
                shards.append([])
                room = shard_bytes
            room -= tensor.nbytes
        shards[-1].append(name)
    return shards


def _write(file: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), str(file), metadata=dict(metadata))
    except KeyError as error:
        names = ", ".join(name for name, tensor in tensors.items() if tensor.dtype == error.args[0])
        raise TypeError(f"{names} is of {error.args[0]}, which safetensors' files can't hold") from None


@contextmanager
def _replacing(*files: Path) -> Iterator[list[Path]]:
    """Names to write under; what is there is flushed and put in the places of `files` if all went well. The last of
    them is the one that is read first.
    """
    temporaries = [file.with_name(f".tmp-{file.name}@{os.getpid()}") for file in files]
    try:
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        if len(files) > 1:  # shards of before may have the same names: at no moment an index names old and new ones
            files[-1].unlink(missing_ok=True)
        for temporary, file in zip(temporaries, files, strict=True):
            temporary.replace(file)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
