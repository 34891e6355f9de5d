"""A number in an optimizer's parameter groups: found by its name, checked, set."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from leyden.handlers.training.shapes import Shape


@dataclass(frozen=True)
class Field:
    """A field of parameter groups, or the number `index` of one that holds several (betas)."""

    name: str
    index: int | None = None

    def __str__(self) -> str:
        return self.name if self.index is None else f"{self.name}.{self.index}"

    def check(self, optimizer: torch.optim.Optimizer, groups: Iterable[dict[str, Any]]) -> None:
        """Raises ValueError if a group has no such field, TypeError if it holds no number."""
        kind, name = type(optimizer).__name__, self.name
        for group in groups:
            if name not in group:
                numbers = [name for name, value in group.items() if _is_number(value) or _numbers_in(value)]
                raise ValueError(
                    f"the {kind} has no {name!r} to drive; its numbers are: {', '.join(numbers)} "
                    '(and "state.name" is engine.state.name)'
                )
            value = group[name]
            if self.index is None and (several := _numbers_in(value)):
                raise TypeError(f'"{name}" of the {kind} holds {several} numbers; name one of them: "{name}.0"')
            if self.index is not None:
                if not 0 <= self.index < _numbers_in(value):
                    raise ValueError(f'"{name}" of the {kind} is {value!r}, which has no number {self.index}')
                value = value[self.index]
            if not _is_number(value):
                raise TypeError(f'"{name}" of the {kind} is {value!r}, not a number that a shape could drive')

    def put(self, groups: Iterable[dict[str, Any]], value: float) -> None:
        """Sets the number in each of the groups; a tensor in place, as torch's schedulers do."""
        name, index = self.name, self.index
        for group in groups:
            there = group[name]
            held = there if index is None else there[index]
            if held.__class__ is torch.Tensor:
                held.fill_(value)
            elif index is None:
                group[name] = value
            else:
                group[name] = (*there[:index], value, *there[index + 1 :])


def parse_target(target: Any) -> tuple[bool, Field]:
    """From "lr", "betas.0", ("betas", 0) or "state.name" to whether it is an attribute of the state, and its name."""
    name: Any = None
    index: Any = None
    if isinstance(target, str):
        owner, _, last = target.rpartition(".")
        if owner == "state" and last.isidentifier():
            return True, Field(last)
        name, index = (owner, int(last)) if owner and last.isdecimal() else (target, None)
    elif isinstance(target, tuple) and len(target) == 2:
        name, index = target
    if not (isinstance(name, str) and name.isidentifier() and (index is None or isinstance(index, int))):
        raise ValueError(
            'ParamSchedule drives a field of the parameter groups ("lr", "betas.0", ("betas", 0)) or an attribute of '
            f'the state ("state.temperature"), but got {target!r}'
        )
    return False, Field(name, index)


NOT_NEGATIVE = {"lr", "weight_decay", "momentum", "betas", "eps", "alpha", "lambd", "dampening", "rho"}
"""Numbers of torch's optimizers that are refused when an optimizer is made with less than 0."""
MOST_LOOKED_AT = 1000


def check_field_values(target: str, name: str, shape: Shape) -> None:
    """Raises ValueError for a shape that takes a number of an optimizer where it can't be meant. Looks at some counts
    over all of it, its ends among them.
    """
    if name not in NOT_NEGATIVE:
        return
    last = MOST_LOOKED_AT if math.isinf(shape.duration) else math.ceil(shape.duration)
    for place in range(min(last, MOST_LOOKED_AT) + 1):
        count = round(place * last / min(last, MOST_LOOKED_AT))
        value = shape(count)
        if value < 0 or (name == "betas" and value >= 1):
            bounds = "from 0 to 1, 1 not included" if name == "betas" else "at least 0"
            raise ValueError(f"{target} is {bounds}, but {type(shape).__name__} takes it to {value:g} at count {count}")


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers_in(value: Any) -> int:
    return len(value) if isinstance(value, tuple) and all(map(_is_number, value)) else 0
