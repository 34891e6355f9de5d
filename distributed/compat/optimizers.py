"""Optimizers: what a gradient scaler and torch.compile ask of them."""

from __future__ import annotations

import torch

from leyden.distributed.compat.relied_on import Reasons

RELIED_ON: Reasons = {
    "torch.optim.SGD(fused=True)": {
        "_step_supports_amp_scaling": "MixedPrecision tells from the scale whether a fused step was skipped",
    },
}


def skips_by_itself(optimizer: torch.optim.Optimizer) -> bool:
    """True for an optimizer (fused) that is called in spite of an overflow and skips its step on the device."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
