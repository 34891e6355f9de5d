"""The random number generators of this process, and how they are seeded."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any

import numpy
import torch

from leyden.engine.values import as_whole


def seed_everything(seed: int) -> int:
    """Seeds python, numpy, torch and each device, and returns the seed; for what comes before the run: the model, say.

    The same on every rank, so replicas are built equal. `Reproducible` seeds the run itself.

    Raises TypeError if the seed is not a whole number, ValueError if it is not in 0 ... 2**32 - 1.
    """
    check_seed(seed, "seed_everything")
    seed = int(seed)
    seed_generators(seed)
    return seed


def check_seed(seed: int, who: str) -> None:
    """Raises TypeError or ValueError for a seed that can't be used."""
    if as_whole(seed) is None:
        raise TypeError(f"{who} takes a whole number as its seed, but got {seed!r} ({type(seed).__name__})")
    if not 0 <= seed < 2**32:
        raise ValueError(f"{who} takes a seed from 0 to 2**32 - 1, which all generators can be given, but got {seed}")


def seed_generators(seed: int) -> None:
    """Seeds all global generators of this process."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # of all devices
    if "torch_xla" in sys.modules:
        sys.modules["torch_xla"].manual_seed(seed)


def derive_seed(*parts: Any) -> int:
    """A seed below 2**63 that follows from the parts alone: plain data, which prints alike in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1
