"""Values in containers: batches, model outputs, hidden states. The one place that knows which containers there are.

Containers are lists, tuples, named tuples, mappings and dataclasses, at any depth. One that is changed is made anew in
its own type: a defaultdict keeps its factory, a Hugging Face ModelOutput its attributes, a list subclass its own state.
Everything else is a leaf: tensors, numbers, strings, sets, objects.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch

SCALAR_TYPES = frozenset({int, float, bool, str, bytes, type(None)})
"""Types of leaves that are nothing but their value."""
_LEAVES = SCALAR_TYPES | {torch.Tensor, torch.nn.Parameter}


def items_of(value: Any) -> list[Any] | tuple[Any, ...] | None:
    """The items of a container, in its order; None for a leaf."""
    # The common types first: to ask whether something is a mapping takes several calls.
    kind = type(value)
    if kind is tuple or kind is list:
        return value  # type: ignore[no-any-return]
    if kind is dict:
        return list(value.values())
    if kind in _LEAVES or isinstance(value, torch.Tensor):
        return None
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Mapping):
        return list(value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, name) for name in _fields_set(value)]
    return None


def with_items(value: Any, items: list[Any] | tuple[Any, ...]) -> Any:
    """A container of the same type with other items, in the order in which `items_of` gives them."""
    kind: Any = type(value)
    if kind is tuple or kind is list:
        return kind(items)
    if kind is dict:
        return dict(zip(value, items, strict=True))
    if isinstance(value, tuple):
        return kind._make(items) if hasattr(kind, "_make") else kind(items)
    if isinstance(value, list):
        changed = copy.copy(value)
        changed[:] = items
        return changed
    if isinstance(value, MutableMapping):
        same_kind = copy.copy(value)  # keeps what else it has: the factory of a defaultdict
        for key, item in zip(value, items, strict=True):
            same_kind[key] = item  # one by one, as a ModelOutput allows no update()
        return same_kind
    if isinstance(value, Mapping):
        return kind(dict(zip(value, items, strict=True)))
    changed = copy.copy(value)
    for name, item in zip(_fields_set(value), items, strict=True):
        object.__setattr__(changed, name, item)  # a dataclass may be frozen
    return changed


def _fields_set(value: Any) -> list[str]:
    """The fields of a dataclass that have a value."""
    return [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with `change(leaf)` in the place of each leaf."""
    items = items_of(value)
    return change(value) if items is None else with_items(value, [map_leaves(item, change) for item in items])


def map_tensors(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """The value with `change(tensor)` in the place of each tensor; other leaves stay as they are."""
    if isinstance(value, torch.Tensor):
        return change(value)
    kind = type(value)  # a step has these in each batch: no call is spent on them
    if kind is tuple or kind is list:
        return kind([map_tensors(item, change) for item in value])
    if kind is dict:
        return {key: map_tensors(item, change) for key, item in value.items()}
    if kind in SCALAR_TYPES:
        return value
    items = items_of(value)
    return value if items is None else with_items(value, [map_tensors(item, change) for item in items])


def detached(value: Any) -> Any:
    """The value with its tensors cut from their graph."""
    kind = value.__class__  # what is asked first is what there is in most steps
    if kind is torch.Tensor:
        return value.detach()
    if kind is tuple:
        return tuple([item.detach() if item.__class__ is torch.Tensor else detached(item) for item in value])
    return map_tensors(value, torch.Tensor.detach)


def leaves_of(value: Any) -> Iterator[Any]:
    """Yield the leaves in their order; of a value that is no container, itself."""
    items = items_of(value)
    if items is None:
        yield value
    else:
        for item in items:
            yield from leaves_of(item)


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    else:
        for item in items_of(value) or ():
            yield from tensors_of(item)


def first_tensor(value: Any) -> torch.Tensor | None:
    """The first tensor in a value, None if there is none."""
    if isinstance(value, torch.Tensor):
        return value
    for item in items_of(value) or ():
        if (tensor := first_tensor(item)) is not None:
            return tensor
    return None


def leaves_by_name(value: Any, name: str = "", separator: str = "/") -> Iterator[tuple[str, Any]]:
    """Yield what nested mappings hold, each under its keys: {"a": {"b": 1}} gives ("a/b", 1). All else is a leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves_by_name(item, f"{name}{separator}{key}" if name else str(key), separator)
    else:
        yield name, value
