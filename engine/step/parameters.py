"""The tie between an optimizer's parameters and a model's: an optimizer that trains other tensors learns nothing,
silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from leyden.distributed.compat import WRAPPERS


def plain_name(name: str) -> str:
    """The name of a parameter without what wrapping its module added to it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def named_parameters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The parameters of several modules, by module and plain name."""
    return {
        f"{key}/{plain_name(name)}": parameter
        for key, module in modules.items()
        for name, parameter in module.named_parameters()
    }


class ParameterNames:
    """Remembers under which name the model knew each of the optimizer's parameters, and restores the tie by name.

    Raises ValueError if the optimizer holds parameters that the model lacks while the model has trainable ones that the
    optimizer lacks: it was made for another model, or for this one before its parameters were exchanged.
    """

    def __init__(self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, update: str) -> None:
        self._modules = modules
        self._optimizer = optimizer
        names = {id(parameter): name for name, parameter in named_parameters(modules).items()}
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        strangers = [parameter for parameter in held if id(parameter) not in names]
        ids = set(map(id, held))
        idle = [name for name, p in named_parameters(modules).items() if p.requires_grad and id(p) not in ids]
        if strangers and idle:
            raise ValueError(
                f"the optimizer of update {update!r} trains {len(held)} parameters, {len(strangers)} of which its "
                f"model does not have, and leaves out {len(idle)} of the model's ({idle[0]}, ...): the model would not "
                "learn. Make the optimizer from this model's parameters, after whatever exchanges them; or pass all "
                "modules that it trains: Update(engine, [model, loss], optimizer)"
            )
        self._names = {id(parameter): names[id(parameter)] for parameter in held if id(parameter) in names}

    def tie(self) -> None:
        """Puts the model's present parameters into the optimizer where others of the same name were, with their state.

        Raises ValueError if a name is gone, or if a state does not fit the new parameter.
        """
        current = named_parameters(self._modules)
        here = set(map(id, current.values()))
        for group in self._optimizer.param_groups:
            for place, old in enumerate(group["params"]):
                name = self._names.get(id(old))
                if name is None or id(old) in here:  # perhaps under another name: wrapped in an adapter, say
                    continue
                if name not in current:
                    raise ValueError(
                        f"the optimizer trains {name}, which its model no longer has; make the optimizer anew from the "
                        "model's parameters"
                    )
                new = current[name]
                state = self._optimizer.state.pop(old, None)
                if state:
                    unfit = [key for key, value in state.items() if _shape(value) not in ((), old.shape, new.shape)]
                    if unfit or old.shape != new.shape:
                        raise ValueError(
                            f"the optimizer's state of {name} has shape {tuple(old.shape)}, "
                            f"the parameter now {tuple(new.shape)}"
                        )
                group["params"][place] = new
                if state:
                    self._optimizer.state[new] = state
        names = {id(parameter): name for name, parameter in current.items()}
        held = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        # Made anew: the id of a parameter that is gone may be another's one day.
        self._names = {id(parameter): names[id(parameter)] for parameter in held if id(parameter) in names}


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def modules_of(model: Any) -> dict[str, nn.Module]:
    """The model of an update, or its models, by name. Raises TypeError for anything else."""
    if isinstance(model, nn.Module):
        return {"model": model}
    models = list(model) if isinstance(model, Iterable) else []
    if not models or not all(isinstance(each, nn.Module) for each in models):
        raise TypeError(
            "an Update takes its model, or a list of models, before the optimizer: Update(engine, model, optimizer); "
            f"but got a {type(model).__name__} as the model"
        )
    return {str(place): each for place, each in enumerate(models)}
