"""The random number generators of one process: python's, numpy's, torch's, and those of its accelerators."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def rng_state() -> dict[str, Any]:
    """The state of each global generator, as plain data and tensors; numpy's only if the process uses it."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy.random" in sys.modules:
        state["numpy"] = sys.modules["numpy.random"].get_state(legacy=False)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        module = torch.get_device_module(accelerator)
        state[accelerator.type] = [module.get_rng_state(*place).cpu() for place in _places(accelerator)]
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts generators back to such a state. A device that is not there now is left out."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy.random

        numpy.random.set_state(state["numpy"])
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        module = torch.get_device_module(accelerator)
        for place, device_state in zip(_places(accelerator), state.get(accelerator.type, ()), strict=False):
            module.set_rng_state(device_state, *place)


def _places(accelerator: torch.device) -> list[tuple[int, ...]]:
    """The arguments that name each device to the functions of its module; mps has one device and no argument for it."""
    if accelerator.type == "mps":
        return [()]
    return [(index,) for index in range(torch.accelerator.device_count())]
