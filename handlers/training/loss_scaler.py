"""The loss scaling that fp16 needs: torch.amp.GradScaler for one update, whose overflow all ranks agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from leyden.distributed.compat import GradScaler, skips_by_itself

Join = Callable[[torch.Tensor, str], torch.Tensor]
Stepper = Callable[[torch.optim.Optimizer], None]


class LossScaler:
    """Scales losses, unscales gradients, and skips steps that overflow; of an overflow on one rank all skip."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._scaler = GradScaler("cpu", **options)
        self._device = ""
        self._unscaled = False

    def place(self, device: str, join: Join | None = None) -> None:
        """Goes on on the device that the setup of a run has found, afresh if an error stopped a step halfway. `join`:
        how an overflow becomes that of all ranks which hold other parts of the model.
        """
        if device != self._device or self._unscaled:
            self._device = device
            self._begin_afresh()
        self._scaler.join = join

    def abandon(self) -> None:
        """An error stopped a step, perhaps halfway."""
        if self._unscaled:
            self._begin_afresh()

    def _begin_afresh(self) -> None:
        """With what the scaler has learnt, but not what it found of the step that it was in."""
        self._unscaled = False
        state, join = self._scaler.state_dict(), self._scaler.join
        self._scaler = GradScaler(self._device, **self._options)
        self._scaler.load_state_dict(state)
        self._scaler.join = join

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self._unscaled = True
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, stepper: Stepper | None = None) -> bool:
        """Whether it stepped, without asking the device a second time."""
        scaler = self._scaler
        # A fused optimizer is always called and skips on the device, so only the scale tells.
        skips_itself = stepper is None and skips_by_itself(optimizer)
        before = scaler.get_scale() if skips_itself else 0.0
        scaler.stepped = skips_itself
        if stepper is None:
            scaler.step(optimizer)
        else:
            scaler.step_by(stepper, optimizer)
        scaler.update()
        self._unscaled = False
        return scaler.stepped and not (skips_itself and scaler.get_scale() < before)

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state_dict)
