"""The random number generators of one process: python's, numpy's, torch's, and those of its accelerators."""

from __future__ import annotations

from typing import Any

import torch

from leyden.engine.randomness.host import host_state, set_host_state


def rng_state() -> dict[str, Any]:
    """The state of each global generator, as plain data and tensors; numpy's only if the process uses it."""
    state = host_state()
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        module = torch.get_device_module(accelerator)
        state[accelerator.type] = [module.get_rng_state(*place).cpu() for place in _places(accelerator)]
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts generators back to such a state. A device that is not there now is left out."""
    set_host_state(state)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type in state:
        module = torch.get_device_module(accelerator)
        for place, device_state in zip(_places(accelerator), state[accelerator.type], strict=False):
            module.set_rng_state(device_state, *place)


class GeneratorsKept:
    """A context after which all global generators are as they were before."""

    def __enter__(self) -> None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        # Where no device was used, none is to be woken for this.
        used = accelerator is not None and getattr(torch.get_device_module(accelerator), "is_initialized", bool)()
        self._state = rng_state() if used else host_state()

    def __exit__(self, *_: object) -> None:
        set_rng_state(self._state)


def _places(accelerator: torch.device) -> list[tuple[int, ...]]:
    """The arguments that name each device to the functions of its module; mps has one device and no argument for it."""
    if accelerator.type == "mps":
        return [()]
    return [(index,) for index in range(torch.accelerator.device_count())]
