"""The random number generators of this process: how they are seeded, and how draws are kept apart from each other."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterable
from typing import Any

import numpy
import torch


def seed_everything(seed: int) -> int:
    """Seeds python, numpy, torch and each device, and returns the seed; for what comes before the run: the model, say.

    The same on every rank, so replicas are built equal. `Reproducible` seeds the run itself.

    Raises TypeError for a seed that is no whole number, ValueError for one that is not in 0 ... 2**32 - 1.
    """
    check_seed(seed, "seed_everything")
    seed_generators(seed)
    return seed


def check_seed(seed: int, who: str) -> None:
    """Raises what is wrong with a user's seed."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{who} takes a whole number as its seed, but got {seed!r} ({type(seed).__name__})")
    if not 0 <= seed < 2**32:
        raise ValueError(f"{who} takes a seed from 0 to 2**32 - 1, which all generators can be given, but got {seed}")


def seed_generators(seed: int) -> None:
    """Seeds all that draw from global generators in this process."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # of all devices
    if "torch_xla" in sys.modules:
        sys.modules["torch_xla"].manual_seed(seed)


def derive_seed(*parts: Any) -> int:
    """A seed below 2**63 that follows from the parts alone: plain data, which prints alike in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def seed_host(seed: int) -> None:
    """Seeds the generators that samples are drawn from: python's, numpy's and torch's of the CPU."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


class Stream:
    """A context whose draws follow a seed, each time from where the last ones ended; outside, nothing has been drawn.

    Of the generators of python, numpy and torch's CPU, and those given.
    """

    def __init__(self, seed: int, generators: Iterable[torch.Generator] = ()) -> None:
        self._seed = seed
        self._generators = [torch.default_generator, *generators]
        self._own: tuple[Any, ...] | None = None

    def __enter__(self) -> None:
        self._others = self._get()
        if self._own is not None:
            self._set(self._own)
            return
        seed_host(self._seed)
        for generator in self._generators[1:]:
            generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        self._own = self._get()
        self._set(self._others)

    def _get(self) -> tuple[Any, ...]:
        return random.getstate(), numpy.random.get_state(), [each.get_state() for each in self._generators]

    def _set(self, state: tuple[Any, ...]) -> None:
        random.setstate(state[0])
        numpy.random.set_state(state[1])
        for generator, own in zip(self._generators, state[2], strict=True):
            generator.set_state(own)


class Aside:
    """A context after which the generators that samples are drawn from are as they were before."""

    def __enter__(self) -> None:
        self._state = random.getstate(), numpy.random.get_state(), torch.default_generator.get_state()

    def __exit__(self, *_: object) -> None:
        python, of_numpy, of_torch = self._state
        random.setstate(python)
        numpy.random.set_state(of_numpy)
        torch.default_generator.set_state(of_torch)
