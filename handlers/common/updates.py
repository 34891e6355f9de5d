"""Handlers that work on one update of an engine, or on all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import nn

from leyden.engine import Update


class WorksOnUpdate(Protocol):
    """A handler of the step or of the model."""

    update: str | None
    """The name of the update it is for; None for all."""


def share_update(one: WorksOnUpdate, other: WorksOnUpdate) -> bool:
    """True if two handlers of an engine work on one update."""
    return one.update is None or other.update is None or one.update == other.update


def modules_of(updates: Iterable[Update]) -> dict[str, nn.Module]:
    """The modules of several updates, each once, by "update/module"."""
    found: dict[str, nn.Module] = {}
    for update in updates:
        for key, module in update.modules.items():
            if not any(module is each for each in found.values()):
                found[f"{update.name}/{key}"] = module
    return found


def trained_elsewhere(update: Update) -> set[int]:
    """The ids of parameters that only optimizers of the engine's other updates have: two may share a model."""
    held = {
        each.name: {id(parameter) for group in each.optimizer.param_groups for parameter in group["params"]}
        for each in update.engine.updates.values()
    }
    return set[int]().union(*held.values()) - held[update.name]
