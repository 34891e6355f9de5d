"""Which models a function names: its variables, those around it, or attributes of its object."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn


def models_named_by(function: Any, *, deep: bool = False) -> list[nn.Module]:
    """Those models, each once; with `deep` also those that the functions which it names name."""
    values = list(_values_of(function))
    if deep:
        values += [value for each in values if inspect.isfunction(each) for value in _values_of(each)]
    return list({id(model): model for model in _found(values)}.values())


def _values_of(process: Any) -> Iterator[Any]:
    if isinstance(process, functools.partial):
        yield from (*process.args, *process.keywords.values())
        yield from _values_of(process.func)
    elif inspect.isfunction(process):
        try:
            variables = inspect.getclosurevars(process)
        except ValueError:  # a variable around it has no value
            return
        yield from (*variables.nonlocals.values(), *variables.globals.values())
    elif inspect.ismethod(process):
        yield from _attributes(process.__self__)
        yield from _values_of(process.__func__)
    else:
        yield from _attributes(process)


def _attributes(thing: Any) -> list[Any]:
    return [thing] if isinstance(thing, nn.Module) else list(getattr(thing, "__dict__", {}).values())


def _found(values: Iterable[Any]) -> Iterator[nn.Module]:
    for value in values:
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, Mapping):
            yield from (each for each in value.values() if isinstance(each, nn.Module))
        elif isinstance(value, list | tuple):
            yield from (each for each in value if isinstance(each, nn.Module))
