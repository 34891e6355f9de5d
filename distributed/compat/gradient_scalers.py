"""torch.amp.GradScaler, of which a step may be another's, and an overflow that of ranks which hold other shards.

torch's own takes gradients of one mesh alone, and lets nobody have a say in whether a step is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.amp.grad_scaler import OptState

from leyden.distributed.compat.relied_on import Reasons
from leyden.distributed.sharded_tensors import is_sharded, local_part

RELIED_ON: Reasons = {
    "torch": {
        "_amp_foreach_non_finite_check_and_unscale_": "MixedPrecision unscales what a rank holds of sharded gradients",
    },
    "torch.amp.GradScaler": {
        "_unscale_grads_": "MixedPrecision unscales parameters on several meshes, and ranks agree on an overflow",
        "_maybe_opt_step": "MixedPrecision tells whether a step was skipped",
        "_per_optimizer_states": "MixedPrecision lets a stepper step, unless a gradient overflowed",
    },
}

Join = Callable[[torch.Tensor, str], torch.Tensor]
Stepper = Callable[[torch.optim.Optimizer], None]

_WHOLE = {torch.nn.Parameter, torch.Tensor}
"""Types of parameters that lie on one rank, all of them; a shard has another."""


class GradScaler(torch.amp.GradScaler):
    """Tells whether it stepped; gradients on several meshes, and on ranks that hold other parts of a model, are one."""

    stepped = False
    join: Join | None = None

    def _unscale_grads_(
        self, optimizer: Any, inv_scale: torch.Tensor, found_inf: torch.Tensor, allow_fp16: bool
    ) -> dict[torch.device, torch.Tensor]:
        kinds = {type(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if kinds <= _WHOLE:
            found = super()._unscale_grads_(optimizer, inv_scale, found_inf, allow_fp16)
        else:
            found = self._unscale_by_mesh(optimizer, inv_scale, found_inf, allow_fp16)
        if self.join is not None:
            found = {device: self.join(one, "max") for device, one in (found or {found_inf.device: found_inf}).items()}
        return found

    def _unscale_by_mesh(
        self, optimizer: Any, inv_scale: torch.Tensor, found_inf: torch.Tensor, allow_fp16: bool
    ) -> dict[torch.device, torch.Tensor]:
        whole: list[torch.Tensor] = []
        meshes: dict[Any, list[torch.Tensor]] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if is_sharded(parameter):
                    meshes.setdefault(parameter.device_mesh, []).append(parameter)
                else:
                    whole.append(parameter)
        found = super()._unscale_grads_(_Part([{"params": whole}]), inv_scale, found_inf, allow_fp16)  # type: ignore[arg-type]
        if meshes:  # the largest last: who has a part in the smaller ones tells it to all of that
            overflow = found_inf.clone()
            for each in found.values():
                overflow = torch.maximum(overflow, each.to(overflow.device))
            for mesh in sorted(meshes, key=lambda mesh: mesh.size()):
                _unscale_shards([p.grad for p in meshes[mesh] if p.grad is not None], inv_scale, overflow)
                for dimension in range(mesh.ndim):
                    torch.distributed.all_reduce(overflow, torch.distributed.ReduceOp.MAX, mesh.get_group(dimension))
            found = {overflow.device: overflow}
        return found

    def _maybe_opt_step(self, optimizer: Any, optimizer_state: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.stepped = not sum(found.item() for found in optimizer_state["found_inf_per_device"].values())
        return optimizer.step(*args, **kwargs) if self.stepped else None

    def step_by(self, stepper: Stepper, optimizer: torch.optim.Optimizer) -> None:
        """As `step`, of unscaled gradients; the stepper steps."""
        state = self._per_optimizer_states[id(optimizer)]
        self.stepped = not sum(found.item() for found in state["found_inf_per_device"].values())
        if self.stepped:
            stepper(optimizer)
        state["stage"] = OptState.STEPPED


def _unscale_shards(gradients: list[torch.Tensor], inv_scale: torch.Tensor, found_inf: torch.Tensor) -> None:
    """Unscales what this rank holds of them, in place, and notes in `found_inf` whether any of that overflowed."""
    parts: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for gradient in map(local_part, gradients):
        if gradient.dtype == torch.float16:
            raise ValueError("Attempting to unscale FP16 gradients.")
        parts.setdefault((gradient.device, gradient.dtype), []).append(gradient)
    for (device, _), each in parts.items():
        found = torch.zeros_like(found_inf, device=device)
        torch._amp_foreach_non_finite_check_and_unscale_(each, found, inv_scale.to(device))
        found_inf.copy_(torch.maximum(found_inf, found.to(found_inf.device)))


class _Part:
    """What of an optimizer is unscaled at a time."""

    def __init__(self, param_groups: list[dict[str, Any]]) -> None:
        self.param_groups = param_groups
