"""Adapters in an optimizer: in the groups of the weights that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from leyden.engine import Update
from leyden.engine.parameters import named_parameters


def groups_of_kin(made: Iterable[str], held: Mapping[str, int]) -> dict[str, int]:
    """For each new parameter the group of its nearest relative: of the parameters `held` in groups, the first one in
    the innermost module around both.
    """
    groups: dict[str, int] = {}
    for name, group in held.items():
        for around in _modules_around(name):
            groups.setdefault(around, group)
    return {name: next((groups[each] for each in _modules_around(name) if each in groups), 0) for name in made}


def enter_optimizer(update: Update, made: Mapping[str, int], held: Mapping[int, str], lr: float | None) -> None:
    """Puts new parameters, by name, into their groups, and takes out what is frozen; with `lr`, into one group more.

    `held`: the names of the parameters that were in the optimizer, by id.
    """
    optimizer, current = update.optimizer, named_parameters(update.modules)
    new = {name: current[name] for name in made if current[name].requires_grad}
    for place, group in enumerate(optimizer.param_groups):
        entering = {name: each for name, each in new.items() if made[name] == place and lr is None}
        _regroup(optimizer, group, current, entering, held)
    if lr is not None:
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
