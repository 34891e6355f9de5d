"""The norm of gradients that lie on several meshes, or in parts of a model on other ranks: that of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from leyden.distributed import is_sharded

Join = Callable[[torch.Tensor, str], torch.Tensor]


def clip_whole_norm(
    parameters: Sequence[torch.Tensor], bound: float, norm_type: float, foreach: bool | None, join: Join | None
) -> torch.Tensor:
    """Clips as torch.nn.utils.clip_grad_norm_, which takes parameters of one mesh; gives the norm before, whole on
    each rank. `join` makes a number of this rank one of all ranks that hold other parts, by "sum" or "max".
    """
    meshes: dict[Any, list[torch.Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            mesh: Any = parameter.grad.device_mesh if is_sharded(parameter.grad) else None  # type: ignore[attr-defined]
            meshes.setdefault(mesh, []).append(parameter)
    norms = [
        _whole(get_total_norm([p.grad for p in each if p.grad is not None], norm_type, foreach=foreach))
        for each in meshes.values()
    ]
    if not norms:
        total = torch.zeros((), device=parameters[0].device if parameters else None)
    elif len(norms) == 1:
        total = norms[0]
    else:
        total = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]), norm_type)
    if join is not None:
        total = join(total, "max") if math.isinf(norm_type) else join(total**norm_type, "sum") ** (1 / norm_type)
    for each in meshes.values():
        clip_grads_with_norm_(each, bound, total, foreach=foreach)
    return total


def _whole(norm: torch.Tensor) -> torch.Tensor:
    return norm.full_tensor() if is_sharded(norm) else norm  # type: ignore[attr-defined]
