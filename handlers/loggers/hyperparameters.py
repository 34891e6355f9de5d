"""The hyperparameters of a run, read from its engine so that nobody has to write them down."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch.nn.parameter import is_lazy

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.engine.step import optimizer_kind
from leyden.engine.values import leaves_by_name
from leyden.handlers.loggers.values import by_group

NO_OPTIONS = ("params", "name", "param_names", "initial_lr")
"""The keys of a param group that are not options."""
LONGEST_TEXT = 6000
"""The length at which MLflow's stores cut a parameter."""


def hyperparameters(
    engine: Engine[Any, Any], options: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> dict[str, Any]:
    """The run's limits, batch size, ranks and device; of each update its model, optimizer and the optimizer's options.

    An option that differs from group to group is given of each that has parameters: optimizer/lr/head. What is unknown
    is left out. The names of an update's parameters begin with its name if the engine has several. `options`: those of
    `hyperparameters_of_optimizers` of a moment before, which hold as long as the groups are the same.
    """
    state = engine.state
    found: dict[str, Any] = {
        "max_epochs": state.max_epochs,
        "max_iters": state.max_iters,
        "epoch_length": state.epoch_length,
        "batch_size": _batch_size(state.dataloader),
        "world_size": dist.world_size(),
        "device": dist.device(),
    }
    for update in engine.updates.values():
        prefix = f"{update.name}/" if len(engine.updates) > 1 else ""
        of_update = _of_update(update) | _options(update, options.get(update.name))
        found |= {prefix + name: value for name, value in of_update.items()}
    return {name: value for name, value in found.items() if value is not None}


def _of_update(update: Update) -> dict[str, Any]:
    parameters = [parameter for module in update.modules.values() for parameter in module.parameters()]
    found: dict[str, Any] = {
        "model": ", ".join(type(module).__name__ for module in update.modules.values()),
        "optimizer": optimizer_kind(update.optimizer),
    }
    if not any(is_lazy(parameter) for parameter in parameters):
        found["parameters"] = sum(parameter.numel() for parameter in parameters)
        found["trainable_parameters"] = sum(p.numel() for p in parameters if p.requires_grad)
    return found


def hyperparameters_of_optimizers(engine: Engine[Any, Any]) -> dict[str, dict[str, Any]]:
    """The options of each update's optimizer as they are now: before a run they are the script's, later on those that
    schedules have set and checkpoints have restored.
    """
    return {
        update.name: {"groups": len(update.optimizer.param_groups), "options": _options(update)}
        for update in engine.updates.values()
    }


def _options(update: Update, taken: Mapping[str, Any] | None = None) -> dict[str, Any]:
    groups = update.optimizer.param_groups
    if taken is not None and taken["groups"] == len(groups):
        return dict(taken["options"])
    found: dict[str, Any] = {}
    for option in dict.fromkeys([*update.optimizer.defaults, *(name for group in groups for name in group)]):
        if option in NO_OPTIONS:
            continue
        values = {group: value for group, value in by_group(groups, option).items() if value is not None}
        texts = {str(value) for value in values.values()}
        if len(texts) == 1:
            found[f"optimizer/{option}"] = texts.pop()
        else:
            found |= {f"optimizer/{option}/{group}": value for group, value in values.items()}
    return found


def _batch_size(data: Any) -> int | None:
    for source in (data, getattr(data, "batch_sampler", None)):
        if isinstance(size := getattr(source, "batch_size", None), int):
            return size
    return None


def flatten(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as text; those in a mapping are named `outer/inner`."""
    return {name: str(value)[:LONGEST_TEXT] for name, value in leaves_by_name(params)}
