"""Which precision a device computes fast."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from leyden import distributed as dist

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16")
"""The names that torch.cpu.get_capabilities has for bf16 instructions, of x86 processors and (the last) of ARM."""
LOW = ("bf16", "fp16", "bf16-true", "fp8")


def fast_precision(device: torch.device, processor: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """The precision of lowest cost that training is safe in on the device, and why.

    `processor`: what the CPU is capable of; by default what torch finds.
    """
    if device.type == "cpu":
        if has_bf16(processor):
            return "bf16", "for which this processor has instructions"
        return "fp32", "since this processor has no instructions for bf16"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "which this GPU computes fast"
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return "fp16", "since this GPU computes fp16 fast, and bf16 not"
        return "fp32", "since this GPU computes neither bf16 nor fp16 fast"
    if device.type in ("xpu", "xla", "hpu"):
        return "bf16", f"which {device.type} computes fast"
    return "fp32", f"since {device.type} may compute nothing else fast"


def has_bf16(processor: Mapping[str, Any] | None = None) -> bool:
    """True if the CPU has instructions for bf16."""
    found: Mapping[str, Any] = _capabilities() if processor is None else processor
    return any(found.get(name) for name in BF16_INSTRUCTIONS)


def _capabilities() -> Mapping[str, Any]:
    """What torch finds; nothing in releases that can't tell."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def warn_if_slow(precision: str, device: torch.device) -> None:
    """Warns of a precision that the processor emulates. Once: Python shows a warning of one text and place once."""
    if device.type == "cpu" and precision in LOW and not has_bf16() and dist.rank() == 0:
        warnings.warn(
            f'MixedPrecision("{precision}") on this processor, which has no instructions for it, is several times '
            'slower than "fp32"; MixedPrecision() alone takes what the device computes fast',
            stacklevel=4,
        )
