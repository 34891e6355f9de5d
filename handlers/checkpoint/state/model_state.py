"""Models and optimizers by the names that the model itself has, whatever wraps it; checked before they are loaded."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden.distributed.compat import (
    buffers_of,
    is_wrapped_by_compile,
    module_versions,
    set_module_versions,
    unwrapped_of_compile,
)
from leyden.engine import Update
from leyden.engine.step import named_parameters, optimizer_kind, plain_name
from leyden.handlers.checkpoint.files.tensor_info import dtype_name


def model_state(model: nn.Module) -> dict[str, Any]:
    """The model's state_dict by plain names."""
    return {plain_name(name): value for name, value in unwrapped(model).state_dict().items()}


def model_versions(model: nn.Module) -> dict[str, Any]:
    """The versions of the model's modules, by which torch decides how each of them loads a state."""
    return {
        _plain_module(name): dict(version) for name, version in module_versions(unwrapped(model).state_dict()).items()
    }


def model_problems(model: nn.Module, saved: Mapping[str, Any], what: str) -> list[str]:
    """What keeps a saved model state from being loaded, in words; `saved` may hold anything with a shape for a
    tensor.
    """
    present = model_state(model)
    problems = []
    if missing := [name for name in present if name not in saved]:
        problems.append(f"{what} has {_some(missing)}, which the checkpoint lacks")
    if surplus := [name for name in saved if name not in present]:
        problems.append(f"the checkpoint has {_some(surplus)}, which {what} lacks")
    return problems + shape_problems(model, saved, what)


def shape_problems(model: nn.Module, saved: Mapping[str, Any], what: str) -> list[str]:
    """The part of `model_problems` that also concerns a state which is loaded in part."""
    problems = []
    for name, value in model_state(model).items():
        if isinstance(value, torch.Tensor) and not nn.parameter.is_lazy(value) and name in saved:
            there = getattr(saved[name], "shape", None)
            if there is None or tuple(there) != tuple(value.shape):
                found = "it is no tensor" if there is None else f"its shape is {tuple(there)}"
                problems.append(f"{name} of {what} has shape {tuple(value.shape)}, in the checkpoint {found}")
    return problems


def dtype_problems(model: nn.Module, saved: Mapping[str, Any], what: str) -> list[str]:
    """What would be rounded, and fits its optimizer's state no longer: no run goes on from that as it was."""
    problems = []
    for name, value in model_state(model).items():
        there = getattr(saved.get(name), "dtype", None)
        if isinstance(value, torch.Tensor) and there is not None and there != value.dtype:
            problems.append(f"{name} of {what} is {dtype_name(value.dtype)}, in the checkpoint {dtype_name(there)}")
    if len(problems) > 3:
        problems[3:] = [f"and {len(problems) - 3} more of other dtypes"]
    return problems


def load_model(model: nn.Module, saved: Mapping[str, Any], versions: Mapping[str, Any], *, strict: bool = True) -> None:
    """Copies a saved state into the model. `strict=False` leaves alone what only one of them has."""
    model = unwrapped(model)
    present = model.state_dict()
    state = OrderedDict((name, saved[plain_name(name)]) for name in present if plain_name(name) in saved)
    modules = {name: versions.get(_plain_module(name), {}) for name in module_versions(present)}
    set_module_versions(state, OrderedDict(modules))
    _own_memory(model)
    model.load_state_dict(state, strict=strict)


def _own_memory(model: nn.Module) -> None:
    """Gives buffers that share memory with themselves (`ones(1).expand(5)`) memory that can be written to."""
    for module in model.modules():
        for name, buffer in buffers_of(module).items():
            if type(buffer) is torch.Tensor and buffer.layout is torch.strided and buffer.numel() > 1:
                repeats = (stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))
                if any(repeats):
                    buffers_of(module)[name] = buffer.contiguous()


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that the user wrote, out of DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif is_wrapped_by_compile(model):
            model = unwrapped_of_compile(model)
        else:
            return model


def optimizer_state(update: Update) -> dict[str, Any]:
    """The optimizer's state_dict with parameters by name: it hangs neither on their order nor on who holds which
    shard.
    """
    state = update.optimizer.state_dict()
    names = parameter_keys(update)
    entries = state.pop("state")
    groups = state.pop("param_groups")
    return {
        "type": optimizer_kind(update.optimizer),
        "state": {names[key]: value for key, value in entries.items() if key in names},
        "groups": [{**group, "params": [names[index] for index in group["params"]]} for group in groups],
        "others": {key: value for key, value in entries.items() if key not in names},
        "rest": state,
        "outside": {key: parameter for key, parameter in parameters_by_key(update).items() if not isinstance(key, str)},
    }


def optimizer_problems(update: Update, saved: Mapping[str, Any]) -> list[str]:
    """What keeps a saved optimizer state from being loaded, in words."""
    what = f"the optimizer of update {update.name!r}"
    present = optimizer_kind(update.optimizer)
    if saved["type"] != present:
        return [f"{what} is {present}, in the checkpoint {saved['type']}"]
    here = _groups(update)
    if len(here) != len(saved["groups"]):
        return [f"{what} has {len(here)} groups of parameters, in the checkpoint {len(saved['groups'])}"]
    problems = []
    for number, (mine, group) in enumerate(zip(here, saved["groups"], strict=True)):
        if missing := [str(name) for name in mine if name not in group["params"]]:
            problems.append(f"group {number} of {what} has {_some(missing)}, which the checkpoint lacks there")
        if surplus := [str(name) for name in group["params"] if name not in mine]:
            problems.append(f"the checkpoint has {_some(surplus)} in group {number} of {what}, which has it not")
    for key, parameter in parameters_by_key(update).items():
        there = getattr(saved.get("outside", {}).get(key), "shape", None)
        if there is not None and tuple(there) != tuple(parameter.shape):
            problems.append(
                f"parameter {key} of {what}, which no module has, has shape {tuple(parameter.shape)}, in the "
                f"checkpoint {tuple(there)}"
            )
    return problems


def load_optimizer(update: Update, saved: Mapping[str, Any]) -> None:
    """Loads a saved optimizer state exactly, in the dtypes it was saved in."""
    optimizer = update.optimizer
    indices = {name: index for index, name in parameter_keys(update).items()}
    entries = {indices[name]: value for name, value in saved["state"].items()}
    groups = []
    for live, mine, group in zip(optimizer.param_groups, _groups(update), saved["groups"], strict=True):
        options = {key: _like(value, live.get(key)) for key, value in group.items()}
        groups.append({**options, "params": [indices[name] for name in mine]})
    optimizer.load_state_dict({"state": {**entries, **saved["others"]}, "param_groups": groups, **saved["rest"]})
    _load_outside(update, saved)
    # torch casts a state to the dtype of its parameter, which loses digits where an optimizer keeps more than that.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entry in entries.items():
        loaded = optimizer.state[parameters[index]]
        for key, value in entry.items():
            if isinstance(value, torch.Tensor) and loaded[key].dtype != value.dtype:
                loaded[key] = value.to(loaded[key].device)


@torch.no_grad()
def _load_outside(update: Update, saved: Mapping[str, Any]) -> None:
    """Parameters that the optimizer trains and no module has: their values are nobody's but the optimizer's."""
    values = saved.get("outside", {})
    for key, parameter in parameters_by_key(update).items():
        if isinstance(key, str):
            continue
        if key in values:
            parameter.copy_(values[key])
        else:  # earlier versions did not save it
            warnings.warn(
                f"the optimizer of update {update.name!r} trains a parameter of shape {tuple(parameter.shape)} that no "
                "module has, and the checkpoint does not have its value: it begins anew",
                stacklevel=2,
            )


def parameter_keys(update: Update) -> dict[int, Any]:
    """Under which name each of the optimizer's parameters is saved, by its index; one that no module has keeps its
    index.
    """
    names: dict[int, str] = {}
    modules = {key: unwrapped(module) for key, module in update.modules.items()}
    for name, parameter in named_parameters(modules).items():
        names.setdefault(id(parameter), name)
    held = [parameter for group in update.optimizer.param_groups for parameter in group["params"]]
    return {index: names.get(id(parameter), index) for index, parameter in enumerate(held)}


def parameters_by_key(update: Update) -> dict[Any, torch.Tensor]:
    """The optimizer's parameters by the keys of `parameter_keys`."""
    held = (parameter for group in update.optimizer.param_groups for parameter in group["params"])
    return dict(zip(parameter_keys(update).values(), held, strict=True))


def _groups(update: Update) -> list[list[Any]]:
    keys = iter(parameter_keys(update).values())
    return [[next(keys) for _ in group["params"]] for group in update.optimizer.param_groups]


def _plain_module(name: str) -> str:
    return plain_name(f"{name}.").removesuffix(".")


def _like(value: Any, live: Any) -> Any:
    """A tensor on the device of the live one: a learning rate that is a tensor, say."""
    return value.to(live.device) if isinstance(value, torch.Tensor) and isinstance(live, torch.Tensor) else value


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
