"""What lies in the attributes of a loader's parts, at any depth: transforms, collate functions, parts of datasets."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy
import torch
from torch.utils.data import DataLoader

HOLDS_NO_PARTS = (str, bytes, int, float, complex, type(None), type, ModuleType, torch.Tensor, numpy.ndarray)
"""Nothing lies below these."""
MOST_ITEMS = 1_000
"""A list or mapping with more is taken for samples, which are not looked into."""
MOST_OBJECTS = 10_000


def is_generator(part: Any) -> bool:
    """True for a generator of random numbers, of python, torch or numpy."""
    if isinstance(part, torch.Generator | random.Random):
        return True
    # Not imported for this: that takes several milliseconds, and whoever has a generator of numpy's has done it.
    of_numpy: Any = sys.modules.get("numpy.random")
    return of_numpy is not None and isinstance(part, (of_numpy.Generator, of_numpy.RandomState))


def has_own_state(part: Any) -> bool:
    """True for an object that can save and load its state; models and optimizers don't count as parts of data."""
    if isinstance(part, (torch.nn.Module, torch.optim.Optimizer, type)):
        return False
    return callable(getattr(part, "state_dict", None)) and callable(getattr(part, "load_state_dict", None))


def below(root: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The objects below `root`, each once, with a path that is the same in each process; not those `seen`, which grow.

    Nothing is looked for below an object that has a state of its own.
    """
    waiting = [(path, child) for path, child in _children(root)]
    while waiting and len(seen) < MOST_OBJECTS:
        path, part = waiting.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield path, part
        if not is_generator(part) and not has_own_state(part):
            waiting += [(path + step, child) for step, child in _children(part)]


def _children(part: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    if isinstance(part, dict):
        if len(part) <= MOST_ITEMS:
            found = [(f"[{key!r}]", value) for key, value in part.items() if isinstance(key, str | int)]
    elif isinstance(part, list | tuple):
        if len(part) <= MOST_ITEMS:
            found = [(f"[{place}]", value) for place, value in enumerate(part)]
    elif isinstance(part, MethodType):
        found = [(".self", part.__self__)]
    elif isinstance(part, functools.partial):
        found = [(".func", part.func), (".args", part.args), (".keywords", part.keywords)]
    elif isinstance(part, FunctionType):
        cells = zip(part.__code__.co_freevars, part.__closure__ or (), strict=True)
        found = [(f".{name}", _content(cell)) for name, cell in cells]
    elif not _is_of_leyden(part):
        slots = [name for kind in type(part).__mro__ for name in _names(getattr(kind, "__slots__", ()))]
        found = [(f".{name}", value) for name, value in getattr(part, "__dict__", {}).items()]
        if isinstance(part, DataLoader):  # its iterators and processes are its own affair
            found = [(path, child) for path, child in found if not path.startswith("._")]
        found = [(path, child) for path, child in found if not is_generator(child)]  # they come with it
        found += [(f".{name}", getattr(part, name)) for name in slots if hasattr(part, name)]
    return [(path, child) for path, child in found if not isinstance(child, HOLDS_NO_PARTS)]


def _names(slots: Any) -> tuple[str, ...]:
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _is_of_leyden(part: Any) -> bool:
    """True for leyden's own objects that a dataset refers to (an engine, say), except its wrappers around a user's
    parts.
    """
    module = type(part).__module__
    return module.startswith("leyden.") and not module.startswith("leyden.handlers.data.seeded")
