"""An accumulation window that is open, as data: its gradients, and how far it has come.

Gradients that each rank has for itself, not synchronised yet, are the rank's own. Those of sharded parameters are
shards of a whole that all ranks share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from leyden.distributed import is_sharded, sharded_like
from leyden.distributed.compat import foreach_mul_, indices_and_values
from leyden.engine.step.parameters import named_parameters

if TYPE_CHECKING:
    from leyden.engine.step.saved_update import SavedUpdate


def parameters_by_name(update: SavedUpdate) -> dict[str, torch.Tensor]:
    """The optimizer's parameters by module and name; one that no module has, by its place in the optimizer."""
    modules = {
        key: module.module if isinstance(module, DistributedDataParallel) else module
        for key, module in update.modules.items()
    }
    names: dict[int, str] = {}
    for name, parameter in named_parameters(modules).items():
        names.setdefault(id(parameter), name)
    held = [parameter for group in update.optimizer.param_groups for parameter in group["params"]]
    return {names.get(id(parameter), str(place)): parameter for place, parameter in enumerate(held)}


def gradients_by_name(update: SavedUpdate, *, sharded: bool) -> dict[str, Any]:
    """Those gradients that are shards of a whole, or those that are not; the tensors are the live ones."""
    gradients = {name: p.grad for name, p in parameters_by_name(update).items() if p.grad is not None}
    return {name: _to_data(gradient) for name, gradient in gradients.items() if is_sharded(gradient) is sharded}


def put_gradients(update: SavedUpdate, saved: Mapping[str, Any]) -> None:
    """Makes these the gradients of the update's parameters; one that is not among them has none.

    Raises ValueError for a gradient of another model.
    """
    parameters = parameters_by_name(update)
    for name, data in saved.items():
        parameter = parameters.get(name)
        if parameter is None or tuple(parameter.shape) != _shape(data):
            there = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
            raise ValueError(
                f"the saved window of update {update.name!r} has a gradient of {name} of shape {_shape(data)}, but the "
                f"model has {there}: it is another model's"
            )
    for name, parameter in parameters.items():
        parameter.grad = _from_data(saved[name], parameter) if name in saved else None


def merge(windows: Sequence[Mapping[str, Any]], rank: int, ranks: int, *, sharded: bool) -> dict[str, Any]:
    """The window for one of `ranks` ranks, from those of another number of them.

    What was accumulated is dealt: it takes the windows rank, rank + ranks, ..., scaled so that the mean over the ranks
    is as it would have been. Of `sharded` parameters each rank takes the mean of all windows. Sums that are divided by
    their total weight keep their scale.
    """
    opened = [window for window in windows if window]
    if not opened:
        return {}
    weighted = any(window["weight"] is not None for window in opened)
    scale = 1.0 if weighted else ranks / len(windows)
    if sharded:
        scale /= ranks
    gradients: dict[str, Any] = {}
    dealt = [window for window in windows[rank::ranks] if window]
    for window in opened if sharded else dealt:
        for name, data in window["gradients"].items():
            gradients[name] = _plus(gradients.get(name), data)
    if scale != 1:
        gradients = {name: _times(data, scale) for name, data in gradients.items()}
    weight = sum((window["weight"] for window in dealt), 0.0) if weighted else None
    return {**opened[0], "weight": weight, "gradients": gradients}


def _shape(data: Any) -> tuple[int, ...]:
    return tuple(data["shape"] if isinstance(data, Mapping) else data.shape)


def _to_data(gradient: torch.Tensor) -> Any:
    """A dense gradient as it is, a sparse one as the parts it is made of."""
    if not gradient.is_sparse:
        return gradient.detach()
    indices, values = indices_and_values(gradient)
    return {
        "indices": indices.detach(),
        "values": values.detach(),
        "shape": list(gradient.shape),
        "coalesced": gradient.is_coalesced(),
    }


def _from_data(data: Any, parameter: torch.Tensor) -> torch.Tensor:
    if isinstance(data, Mapping):
        indices, values = (data[key].to(parameter.device, copy=True) for key in ("indices", "values"))
        shape = tuple(data["shape"])
        return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=data["coalesced"], check_invariants=True)
    value: torch.Tensor = data
    if is_sharded(parameter) and not is_sharded(value):
        return sharded_like(parameter, value)
    if is_sharded(value) and not is_sharded(parameter):
        source: Any = value
        value = source.full_tensor()
    # Laid out in memory as torch lays out gradients: like the parameter, whatever the file had.
    with torch.no_grad():
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _plus(sum_: Any, data: Any) -> Any:
    if sum_ is None:
        return data
    if isinstance(data, Mapping):
        return {
            **data,
            "indices": torch.cat([sum_["indices"], data["indices"]], dim=1),
            "values": torch.cat([sum_["values"], data["values"]]),
            "coalesced": False,
        }
    return sum_ + data


def _times(data: Any, scale: float) -> Any:
    return {**data, "values": data["values"] * scale} if isinstance(data, Mapping) else data * scale


def scale_gradients(parameters: list[torch.Tensor], factor: torch.Tensor | float) -> None:
    """Multiplies the gradients in place; the factor may be a scalar tensor, which is not copied to the host."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if dense := [gradient for gradient in gradients if not gradient.is_sparse]:
        foreach_mul_(dense, factor)
    for gradient in gradients:
        if gradient.is_sparse:
            gradient.mul_(factor)
