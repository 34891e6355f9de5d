"""What a checkpoint says is not believed before it is looked at: it may come from anybody."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from leyden.handlers.checkpoint.leaves import TensorInfo

LARGEST_TEXT = 2**32
"""Bytes of JSON that are read at most; a run's is some ten thousand, and grows with what handlers keep."""


def read_text_file(path: Any, size: int | None = None) -> bytes:
    """The bytes of a file that stands where it seems to, of that size if one is given.

    A symbolic link could lead anywhere; a pipe or a device would give bytes, or let one wait, for ever.
    Raises ValueError, OSError.
    """
    if path.is_symlink():
        raise ValueError("it is a symbolic link")
    found = path.stat()
    if isinstance(path, Path) and not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    if size is not None and found.st_size != size:
        raise ValueError(f"it has {found.st_size} bytes instead of {size}")
    if found.st_size > LARGEST_TEXT:
        raise ValueError(f"it has {found.st_size} bytes, more than {LARGEST_TEXT}")
    data: bytes = path.read_bytes()
    return data


def parse_json(data: bytes) -> Any:
    """JSON as leyden writes it. Raises ValueError, RecursionError: also for a key that stands twice, where readers
    differ in which they take, and for numbers that JSON does not have.
    """
    return json.loads(data.decode(), object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double!r} stands twice")
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def check_outline(outline: Any, world_size: int) -> None:
    """Raises ValueError unless the state has the parts of README.md, each with what can be expected of it."""
    _check(outline, dict, "the state")
    for part in ("models", "versions", "optimizers", "scalers", "engine", "extra", "ranks"):
        if part not in outline:
            raise ValueError(f"it lacks {part}")
        _check(outline[part], dict, part)
    models, versions, ranks = outline["models"], outline["versions"], outline["ranks"]
    for update, modules in models.items():
        _check(modules, dict, f"models/{update}")
        for part in ("versions", "optimizers"):
            _check(outline[part].get(update), dict, f"{part}/{update}")
        for key, state in modules.items():
            _check(state, dict, f"models/{update}/{key}")
            of_modules = versions[update].get(key)
            _check(of_modules, dict, f"versions/{update}/{key}")
            for name, version in of_modules.items():
                _check(version, dict, f"versions/{update}/{key}/{name}")
    for update, saved in outline["optimizers"].items():
        for part, kind in (("type", str), ("state", dict), ("groups", list), ("others", dict), ("rest", dict)):
            _check(saved.get(part), kind, f"optimizers/{update}/{part}")
        for key, entry in saved["state"].items():
            _check(entry, dict, f"optimizers/{update}/state/{key}")
        for number, group in enumerate(saved["groups"]):
            _check(group, dict, f"optimizers/{update}/groups/{number}")
            _check(group.get("params"), list, f"optimizers/{update}/groups/{number}/params")
    _check(outline["engine"].get("handlers"), dict, "engine/handlers")
    if ranks.keys() != {str(rank) for rank in range(world_size)}:
        raise ValueError(f"it has the ranks {', '.join(map(str, ranks))}, but {world_size} wrote it")
    for rank, own in ranks.items():
        _check(own, dict, f"ranks/{rank}")
        _check(own.get("rng"), dict, f"ranks/{rank}/rng")


def _check(value: Any, kind: type, place: str) -> None:
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise ValueError(f"{place} is {found}, where a {kind.__name__} should be")


def check_declared(wanted: Iterable[TensorInfo], stored: Mapping[str, Any]) -> None:
    """Raises ValueError unless the files have all of each tensor that is wanted, so that no memory is taken for what
    is not there. `stored`: TensorStorageMetadata by name, as a storage reader of torch.distributed.checkpoint gives it.
    """
    for info in wanted:
        found = stored.get(info.name)
        if found is None:
            raise ValueError(f"{info.name} is not in the files")
        dtype, shape = info.dtype, info.shape
        if dtype.is_complex and not found.properties.dtype.is_complex:  # as pairs of real numbers
            dtype, shape = dtype.to_real(), (*shape, 2)
        if (tuple(found.size), found.properties.dtype) != (shape, dtype):
            there = TensorInfo(info.name, tuple(found.size), found.properties.dtype)
            raise ValueError(f"{info.name} should be {info}, and is {there} in the files")
        held = sum(math.prod(chunk.sizes) for chunk in found.chunks)
        if held != math.prod(shape):
            raise ValueError(f"{info.name} has {math.prod(shape)} numbers, of which the files hold {held}")
