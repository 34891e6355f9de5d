"""From nested data to JSON and tensors by name, and back. Nothing is ever executed to read it: no pickle.

Scalars, strings, bytes, the containers of the standard library and numpy's numbers become JSON with tags such as
`{"$tuple": [...]}`; a tensor becomes `{"$tensor": name, "shape": ..., "dtype": ...}` beside a table of tensors.
"""

from __future__ import annotations

import base64
import math
import random
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leyden.handlers.checkpoint.files.tensor_info import (
    NUMPY_KINDS,
    TensorInfo,
    check_storable,
    dtype_name,
    identity,
    to_dtype,
    to_info,
    to_numpy,
    to_text,
)

FACTORIES: dict[Any, str] = {
    None: "None",
    int: "int",
    float: "float",
    bool: "bool",
    str: "str",
    list: "list",
    dict: "dict",
    set: "set",
    tuple: "tuple",
}
"""What makes the values of a defaultdict that can be read again."""
Json = Any
"""What `json` reads and writes."""


def encode(tree: dict[str, Any]) -> tuple[Json, dict[str, torch.Tensor]]:
    """JSON for nested data, and its tensors by name: the keys on the way to each, joined by slashes.

    A tensor that occurs several times (tied weights) is held once, under its first name; the rest refers to it.

    Raises TypeError, with the place, for a value that is not plain data.
    """
    encoder = _Encoder()
    return encoder.encode(tree, ()), encoder.tensors


def decode(json: Json, tensor: Callable[[TensorInfo], Any]) -> Any:
    """The data again; `tensor` gives what stands for each tensor. Raises ValueError for JSON that `encode` never
    makes.
    """
    if isinstance(json, list):
        return [decode(item, tensor) for item in json]
    if not isinstance(json, dict):
        return json
    tag = next((key for key in json if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item, tensor) for key, item in json.items()}
    if tag == "$tensor":
        return tensor(to_info(json))
    try:
        return _DECODERS[tag](json, tensor)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{tag} is not readable: {type(error).__name__}: {error}") from None


def tensors_in(json: Json) -> dict[str, TensorInfo]:
    """The tensors that the JSON refers to, by name. Raises ValueError where it contradicts itself about one."""
    found: dict[str, TensorInfo] = {}

    def note(info: TensorInfo) -> None:
        if found.setdefault(info.name, info) != info:
            raise ValueError(f"the tensor {info.name} is described as {info} and as {found[info.name]}")

    decode(json, note)
    return found


class _Encoder:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._seen: dict[tuple[Any, ...], Json] = {}

    def encode(self, value: Any, path: tuple[str, ...]) -> Json:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if kind is dict:
            return self._dict(value, path)
        if kind is list:
            return self._items(value, path)
        if kind is OrderedDict or kind is Counter:
            return {"$ordered" if kind is OrderedDict else "$counter": self._pairs(value, path)}
        if kind is deque:
            return {"$deque": self._items(value, path), "maxlen": value.maxlen}
        if kind is tuple or kind is torch.Size:
            return {"$tuple" if kind is tuple else "$size": self._items(value, path)}
        if kind is set or kind is frozenset:
            return {"$set" if kind is set else "$frozenset": self._items(value, path)}
        if kind is bytes:
            return {"$bytes": to_text(value)}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in NUMPY_KINDS:
            tag = "$array" if isinstance(value, np.ndarray) else "$number"
            return {tag: to_text(value.tobytes()), "shape": list(value.shape), "dtype": value.dtype.str}
        if kind is torch.dtype:
            return {"$dtype": dtype_name(value)}
        if kind is torch.device:
            return {"$device": str(value)}
        if isinstance(value, Path):
            return {"$path": str(value)}
        if kind is defaultdict and value.default_factory in FACTORIES:
            return {"$defaultdict": self._pairs(value, path), "of": FACTORIES[value.default_factory]}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {"$namedtuple": self._items(value, path), "name": kind.__name__, "fields": list(kind._fields)}
        raise TypeError(
            f"{'/'.join(path)} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint can't hold: it takes "
            "tensors, None, bool, int, float, str, bytes, paths, numpy's numbers and arrays, and dict, list, tuple, "
            f"set or deque of these. Let the state_dict() that it comes from give such data{_advice(value)}"
        )

    def _items(self, values: Any, path: tuple[str, ...]) -> list[Json]:
        return [self.encode(value, (*path, str(place))) for place, value in enumerate(values)]

    def _pairs(self, mapping: dict[Any, Any], path: tuple[str, ...]) -> list[Json]:
        return [
            [self.encode(key, (*path, "keys")), self.encode(item, (*path, str(key)))] for key, item in mapping.items()
        ]

    def _dict(self, mapping: dict[Any, Any], path: tuple[str, ...]) -> Json:
        if all(type(key) is str and not key.startswith("$") for key in mapping):
            return {key: self.encode(item, (*path, key)) for key, item in mapping.items()}
        return {"$dict": self._pairs(mapping, path)}

    def _tensor(self, value: torch.Tensor, path: tuple[str, ...]) -> Json:
        place = "/".join(path)
        check_storable(value, place)
        value = value.detach()
        key = identity(value)
        if key is not None and key in self._seen:
            return self._seen[key]
        name = place
        while name in self.tensors or name in ("", "__metadata__"):  # the latter means something to safetensors
            name += "'"
        self.tensors[name] = value
        json = {"$tensor": name, "shape": list(value.shape), "dtype": dtype_name(value.dtype)}
        if key is not None:
            self._seen[key] = json
        return json


def _device(name: Any) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device") from error


def _advice(value: Any) -> str:
    if isinstance(value, Enum):
        return ": its .value, or its .name"
    if isinstance(value, torch.Generator):
        return ": its get_state()"
    if isinstance(value, random.Random):
        return ": its getstate()"
    if isinstance(value, np.random.Generator):
        return ": its bit_generator.state"
    return ": a dict of its items" if isinstance(value, defaultdict) else ""


def _named_tuple(json: dict[str, Any], tensor: Callable[[TensorInfo], Any]) -> Any:
    """A class of that name and fields, made anew: nothing is imported for it."""
    name, fields = json["name"], json["fields"]
    if not isinstance(name, str) or not isinstance(fields, list) or not all(type(each) is str for each in fields):
        raise ValueError("a named tuple has a name and fields")
    return namedtuple(name, fields)(*decode(json["$namedtuple"], tensor))


def _default_dict(json: dict[str, Any], tensor: Callable[[TensorInfo], Any]) -> Any:
    factory: Any = next((factory for factory, name in FACTORIES.items() if name == json["of"]), type)
    if factory is type:
        raise ValueError(f"{json['of']!r} makes no default value")
    return defaultdict(factory, _pairs(json["$defaultdict"], tensor))


def _pairs(json: list[Json], tensor: Callable[[TensorInfo], Any]) -> Iterator[tuple[Any, Any]]:
    for key, item in json:
        yield decode(key, tensor), decode(item, tensor)


_DECODERS: dict[str, Callable[[dict[str, Any], Callable[[TensorInfo], Any]], Any]] = {
    "$float": lambda json, tensor: float(json["$float"]),
    "$bytes": lambda json, tensor: base64.b64decode(json["$bytes"], validate=True),
    "$tuple": lambda json, tensor: tuple(decode(json["$tuple"], tensor)),
    "$size": lambda json, tensor: torch.Size(decode(json["$size"], tensor)),
    "$set": lambda json, tensor: set(decode(json["$set"], tensor)),
    "$frozenset": lambda json, tensor: frozenset(decode(json["$frozenset"], tensor)),
    "$deque": lambda json, tensor: deque(decode(json["$deque"], tensor), json["maxlen"]),
    "$dict": lambda json, tensor: dict(_pairs(json["$dict"], tensor)),
    "$ordered": lambda json, tensor: OrderedDict(_pairs(json["$ordered"], tensor)),
    "$counter": lambda json, tensor: Counter(dict(_pairs(json["$counter"], tensor))),
    "$array": lambda json, tensor: to_numpy(json, "$array"),
    "$number": lambda json, tensor: to_numpy(json, "$number"),
    "$dtype": lambda json, tensor: to_dtype(json["$dtype"]),
    "$device": lambda json, tensor: _device(json["$device"]),
    "$path": lambda json, tensor: Path(json["$path"]),
    "$defaultdict": _default_dict,
    "$namedtuple": _named_tuple,
}
