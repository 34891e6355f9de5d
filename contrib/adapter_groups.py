"""Adapters in an optimizer: in the groups of the weights that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from leyden.engine import Update
from leyden.engine.step import named_parameters


@dataclass(frozen=True)
class Kin:
    """A new parameter, and the group of its nearest relative among those that an update's optimizer has."""

    update: str
    name: str
    group: int
    distance: int
    """How many modules out from the new parameter the first one is that is around both."""


def find_kin(update: str, made: Iterable[str], held: Mapping[str, int]) -> Iterator[Kin]:
    """For each new parameter its kin of the update: of the parameters `held` in groups, by name, the first one in the
    innermost module around both.
    """
    groups: dict[str, int] = {}
    for name, group in held.items():
        for around in _modules_around(name):
            groups.setdefault(around, group)
    for name in made:
        modules = _modules_around(name)
        distance = next((place for place, each in enumerate(modules) if each in groups), len(modules))
        yield Kin(update, name, groups[modules[distance]] if distance < len(modules) else 0, distance)


def enter_optimizer(update: Update, made: Mapping[str, int], held: Mapping[int, str], lr: float | None) -> None:
    """Puts new parameters, by name, into their groups, and takes out what is frozen; with `lr`, into one group more.

    `held`: the names of the parameters that were in the optimizer, by id.
    """
    optimizer, current = update.optimizer, named_parameters(update.modules)
    there = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    new = {name: current[name] for name in made if current[name].requires_grad and id(current[name]) not in there}
    for place, group in enumerate(optimizer.param_groups):
        entering = {name: each for name, each in new.items() if made[name] == place and lr is None}
        _regroup(optimizer, group, current, entering, held)
    if lr is not None and new:
        first = optimizer.param_groups[0]
        options = {key: value for key, value in first.items() if key not in ("params", "param_names")}
        members = [(_label(name), each) if "param_names" in first else each for name, each in new.items()]
        optimizer.add_param_group({**options, "params": members, "lr": lr})


def _regroup(
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    current: Mapping[str, nn.Parameter],
    entering: Mapping[str, nn.Parameter],
    held: Mapping[int, str],
) -> None:
    labels = dict(zip(map(id, group["params"]), group.get("param_names", ()), strict=False))
    members: list[tuple[str, torch.Tensor]] = list(entering.items())
    for parameter in group["params"]:
        name = held.get(id(parameter), "")  # none: of another module than the update's
        if current.get(name, parameter).requires_grad:
            members.append((name, parameter))
        else:
            optimizer.state.pop(parameter, None)
    # As in model.parameters(): what sums over them (a norm) is then to the bit what an optimizer made of them gives.
    order = {name: place for place, name in enumerate(current)}
    members.sort(key=lambda member: order.get(member[0], len(order)))
    group["params"][:] = [parameter for _, parameter in members]
    if "param_names" in group:
        group["param_names"][:] = [labels.get(id(parameter)) or _label(name) for name, parameter in members]


def _label(name: str) -> str:
    """A parameter's name as its own module has it."""
    return name.partition("/")[2]


def _modules_around(name: str) -> list[str]:
    """From the innermost."""
    parts = name.split(".")
    return [*(".".join(parts[:number]) for number in range(len(parts) - 1, 0, -1)), name.partition("/")[0]]
