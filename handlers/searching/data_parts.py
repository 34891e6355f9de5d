"""What the data of a run is made of: loaders, samplers, wrappers, datasets, and their generators of random numbers."""

from __future__ import annotations

from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader

from leyden.distributed.compat import PASS, replace_part
from leyden.engine import Engine, Update
from leyden.handlers.searching.kept_values import KeptValues

LARGEST_CONTAINER = 64  # of a container that is looked into: one that holds the samples themselves is no part
MOST = 10_000
CLOSED = (
    *(type(None), str, bytes, int, float, type, ModuleType, FunctionType, MethodType),
    *(Engine, Update, torch.nn.Module, torch.Tensor),
)
"""What is not looked into."""
MACHINERY = ("threading", "queue", "multiprocessing", "concurrent", "_thread", "weakref", "logging")


def keep_data(copies: KeptValues, data: Any) -> None:
    """Keeps the attributes of each part, and the states of the generators: what a pass over the data changes.

    Samples are not copied: a dataset that alters its own tensors or arrays in place stays altered. Loaders forget the
    iterator that they hold, so that persistent workers of an earlier pass are not drawn in.
    """
    waiting, seen = [data], {id(data)}
    while waiting and len(seen) < MOST:
        part = waiting.pop()
        if copies.keep_generator(part):
            continue
        if isinstance(part, dict):
            inner = list(part.values()) if len(part) <= LARGEST_CONTAINER else []
        elif isinstance(part, list | tuple | set):
            inner = list(part) if len(part) <= LARGEST_CONTAINER else []
        elif hasattr(part, "__dict__"):
            attributes = vars(part)
            copies.keep_items(attributes)
            if isinstance(part, DataLoader):
                replace_part(part, PASS, None)
            inner = list(attributes.values())
        else:
            inner = []
        for each in inner:
            if id(each) not in seen and _is_part(each):
                seen.add(id(each))
                waiting.append(each)


def _is_part(value: Any) -> bool:
    return not isinstance(value, CLOSED) and type(value).__module__.partition(".")[0] not in MACHINERY
