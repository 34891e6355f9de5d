"""What a checkpoint says is not believed before it is looked at: it may come from anybody."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from leyden.engine.resume import GOES_ON_AT
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo

LARGEST_TEXT = 2**32
"""Bytes of JSON that are read at most; a run's is some ten thousand, and grows with what handlers keep."""


MOST_CONTAINERS = 2_000_000
"""Lists and mappings that are read at most: a tensor has two, what a rank has for itself some thirty."""


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
    containers = data.count(b"[") + data.count(b"{")
    if containers > MOST_CONTAINERS:
        raise ValueError(f"it has {containers} lists and mappings, more than {MOST_CONTAINERS}")
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


def check_outline(outline: Any) -> None:
    """Raises ValueError unless the state has the parts of README.md, each with what can be expected of it."""
    _check(outline, dict, "the state")
    for part in ("models", "versions", "optimizers", "scalers", "engine", "extra"):
        if part not in outline:
            raise ValueError(f"it lacks {part}")
        _check(outline[part], dict, part)
    check_script(outline.get("script", {}))
    models, versions = outline["models"], outline["versions"]
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
        _check(saved, dict, f"optimizers/{update}")
        for part, kind in (("type", str), ("state", dict), ("groups", list), ("others", dict), ("rest", dict)):
            _check(saved.get(part), kind, f"optimizers/{update}/{part}")
        _check(saved.get("outside", {}), dict, f"optimizers/{update}/outside")
        for key, entry in saved["state"].items():
            _check(entry, dict, f"optimizers/{update}/state/{key}")
        options = outline.get("script", {}).get("optimizers", {}).get(update, [])
        for number, group in enumerate(saved["groups"]):
            _check(group, dict, f"optimizers/{update}/groups/{number}")
            _check(group.get("params"), list, f"optimizers/{update}/groups/{number}/params")
            if number < len(options) and "lr" in options[number] and "lr" not in group:
                raise ValueError(f"optimizers/{update}/groups/{number}/lr is missing")
    check_engine(outline["engine"])


def check_ranks(ranks: Any, world_size: int) -> None:
    """Raises ValueError unless there is what each rank had for itself, as one file has it for all up to schema 3."""
    _check(ranks, dict, "ranks")
    if ranks.keys() != {str(rank) for rank in range(world_size)}:
        raise ValueError(f"it has the ranks {', '.join(map(str, ranks))}, but {world_size} wrote it")
    for rank, own in ranks.items():
        check_rank(own, rank)


def check_rank(own: Any, rank: int | str) -> None:
    """Raises ValueError unless a rank can go on from that."""
    _check(own, dict, f"ranks/{rank}")
    _check(own.get("rng"), dict, f"ranks/{rank}/rng")
    _check(own.get("engine", {}), dict, f"ranks/{rank}/engine")
    for part in ("updates", "handlers", "metrics", "data"):
        _check(own.get("engine", {}).get(part, {}), dict, f"ranks/{rank}/engine/{part}")


def check_engine(engine: Mapping[str, Any]) -> None:
    """Raises ValueError unless an engine can go on from that."""
    _check(engine.get("handlers"), dict, "engine/handlers")
    for name in ("epoch", "iteration", "step"):
        if not is_count(engine.get(name)):
            raise ValueError(f"engine/{name} is {engine.get(name)!r}, where a count should be")
    for name in ("epoch_length", "max_epochs", "max_iters"):
        if engine.get(name) is not None and not is_count(engine[name]):
            raise ValueError(f"engine/{name} is {engine[name]!r}, where a count, or none, should be")
    for name in ("metrics", "times_set", "user", "updates", "handler_marks"):
        _check(engine.get(name, {}), dict, f"engine/{name}")
    _check(engine.get("cursor"), dict, "engine/cursor")
    for name, value in engine["cursor"].items():
        if type(value) is not bool and not is_count(value):
            raise ValueError(f"engine/cursor/{name} is {value!r}, where a count should be")
    for label, mark in engine.get("handler_marks", {}).items():
        _check(mark, dict, f"engine/handler_marks/{label}")
        kinds: dict[str, Any] = {"kind": str, "name": (str, NoneType), "about": dict, "settings": dict, "told": bool}
        if mark.keys() != kinds.keys() or not all(isinstance(mark[key], kind) for key, kind in kinds.items()):
            raise ValueError(f"engine/handler_marks/{label} is not what a handler is known by")
    suspended = engine.get("suspended")
    if suspended is not None:
        _check(suspended, dict, "engine/suspended")
        if suspended.get("event") not in {event.name for event in GOES_ON_AT}:
            raise ValueError(f"engine/suspended/event is {suspended.get('event')!r}, at which no run can go on")
        if not is_count(suspended.get("index")):
            raise ValueError(f"engine/suspended/index is {suspended.get('index')!r}, where a count should be")
        _check(suspended.get("handler"), str, "engine/suspended/handler")
        _check(suspended.get("terminated"), bool, "engine/suspended/terminated")


def check_script(script: Any) -> None:
    """Raises ValueError unless it is what `script.Script` gives."""
    _check(script, dict, "script")
    for part in ("optimizers", "data", "limits"):
        _check(script.get(part, {}), dict, f"script/{part}")
    for update, groups in script.get("optimizers", {}).items():
        _check(groups, list, f"script/optimizers/{update}")
        for number, group in enumerate(groups):
            _check(group, dict, f"script/optimizers/{update}/{number}")
            for name in ("lr", "initial_lr"):
                if name in group and type(group[name]) not in (int, float):
                    raise ValueError(f"script/optimizers/{update}/{number}/{name} is {group[name]!r}, no number")


def is_count(value: Any) -> bool:
    """True for a whole number that a run can have counted."""
    return type(value) is int and 0 <= value < 2**63


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
        shape, dtype = info.stored_in(found.properties.dtype)
        if (tuple(found.size), found.properties.dtype) != (shape, dtype):
            there = TensorInfo(info.name, tuple(found.size), found.properties.dtype)
            raise ValueError(f"{info.name} should be {info}, and is {there} in the files")
        held = sum(math.prod(chunk.sizes) for chunk in found.chunks)
        if held != math.prod(shape):
            raise ValueError(f"{info.name} has {math.prod(shape)} numbers, of which the files hold {held}")
