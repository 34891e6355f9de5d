"""Splits the param groups of an optimizer, and tells its schedulers, which keep a value for each group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from leyden.distributed.compat import LAST_RATES
from leyden.handlers.training.torch_schedulers import schedulers_in

RATIO = "lr_ratio"
"""The key under which a group remembers by how much its learning rate was scaled."""
SCALED = ("base_lrs", "max_lrs", "min_lrs", LAST_RATES)
COPIED = ("lr_lambdas", "base_momentums", "max_momentums")
"""Attributes of torch's schedulers with a value for each group."""


def give_group(
    optimizer: torch.optim.Optimizer,
    schedulers: Iterable[LRScheduler],
    parameters: dict[str, torch.nn.Parameter],
    ratio: float,
) -> None:
    """Puts parameters into groups of their own, whose learning rates are `ratio` times those of the groups they were
    in.

    All other options are copied; parameters that are new to the optimizer copy those of its first group. Schedulers
    scale the new groups like the old ones. Groups that are already divided this way (by the same plan, earlier) stay as
    they are.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    for source, members in _by_group(optimizer, parameters.values()).items():
        group = optimizer.param_groups[source]
        if group.get(RATIO) == ratio and {id(p) for p in group["params"]} == {id(p) for p in members}:
            continue
        options = {key: _scaled(value, ratio) if _is_rate(key) else value for key, value in group.items()}
        options[RATIO] = ratio
        if "param_names" in options:
            del options["param_names"]
            known = dict(zip(map(id, group["params"]), group["param_names"], strict=True))
            options["params"] = [(known.get(id(p), names[id(p)]), p) for p in members]
        else:
            options["params"] = members
        _take_out(group, members)
        optimizer.add_param_group(options)
        for scheduler in schedulers:
            for each in schedulers_in(scheduler):
                for attribute in (*SCALED, *COPIED):
                    values = vars(each).get(attribute)
                    if isinstance(values, list):  # made anew: one list may serve two schedulers
                        factor = ratio if attribute in SCALED else 1
                        setattr(each, attribute, [*values, _scaled(values[source], factor)])


def complete_first_group(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]) -> None:
    """Adds the parameters that the optimizer does not have to its first group."""
    first = optimizer.param_groups[0]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parameters.items():
        if id(parameter) not in held:
            held.add(id(parameter))
            first["params"].append(parameter)
            if "param_names" in first:
                first["param_names"].append(name)


def _by_group(
    optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter]
) -> dict[int, list[torch.nn.Parameter]]:
    """The parameters, each once, by the number of the group they are in; 0 for those that are in none."""
    where = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
    found: dict[int, dict[int, torch.nn.Parameter]] = {}
    for parameter in parameters:
        found.setdefault(where.get(id(parameter), 0), {})[id(parameter)] = parameter
    return {number: list(found[number].values()) for number in sorted(found)}


def _take_out(group: dict[str, Any], members: list[torch.nn.Parameter]) -> None:
    gone = {id(p) for p in members}
    kept = [place for place, p in enumerate(group["params"]) if id(p) not in gone]
    for key in ("params", "param_names"):
        if key in group:
            group[key] = [group[key][place] for place in kept]


def _is_rate(key: str) -> bool:
    return key == "lr" or key.endswith("_lr")  # initial_lr, max_lr, min_lr, swa_lr


def _scaled(value: Any, ratio: float) -> Any:
    return value * ratio if isinstance(value, int | float | torch.Tensor) else value
