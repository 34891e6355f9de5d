"""The random number generators of the host that data is drawn from: python's, numpy's and torch's of the CPU."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy
import torch


def host_state() -> dict[str, Any]:
    """The state of each global generator of the host, as plain data and tensors; numpy's only if it is in use."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.default_generator.get_state()}
    if "numpy.random" in sys.modules:
        of_numpy = numpy.random.get_state(legacy=False)
        numbers = of_numpy["state"]
        # A tensor, not an array: torch.load takes no arrays from a file that it is not told to trust.
        state["numpy"] = of_numpy | {"state": numbers | {"key": torch.from_numpy(numbers["key"].astype("int64"))}}
    return state


def is_same_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if nothing was drawn between two such states."""
    if one["python"] != other["python"] or not torch.equal(one["torch"], other["torch"]):
        return False
    mine, others = (state.get("numpy") for state in (one, other))
    return bool(numpy.all(_flat(mine) == _flat(others))) if mine and others else mine is others


def _flat(state: Mapping[str, Any]) -> Any:
    """A state of numpy's as one array, whatever its kind of generator."""
    values = [state["state"], {name: value for name, value in state.items() if name not in ("state", "bit_generator")}]
    return numpy.concatenate([numpy.ravel(value).astype(object) for part in values for value in part.values()])


def set_host_state(state: Mapping[str, Any]) -> None:
    """Puts the generators back to such a state."""
    random.setstate(state["python"])
    torch.default_generator.set_state(state["torch"])
    if "numpy" in state:
        numbers = state["numpy"]["state"]
        key = numpy.asarray(numbers["key"]).astype("uint32")  # an array in states that an earlier leyden saved
        numpy.random.set_state(state["numpy"] | {"state": numbers | {"key": key}})


def seed_host(seed: int) -> None:
    """Seeds the generators that samples are drawn from: python's, numpy's and torch's of the CPU."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


class Stream:
    """A context whose draws follow a seed, each time from where the last ones ended; outside, nothing has been drawn.

    Of the generators of python, numpy and torch's CPU, and those given. Instead of a seed it takes the state of the
    host's generators to begin with; the given generators then begin as they are.
    """

    def __init__(self, seed: int | Mapping[str, Any], generators: Iterable[torch.Generator] = ()) -> None:
        self._start = seed
        self._generators = list(generators)
        self._own: tuple[Any, ...] | None = None

    def __enter__(self) -> None:
        self._others = self._get()
        if self._own is not None:
            self._set(self._own)
        elif isinstance(self._start, int):
            seed_host(self._start)
            for generator in self._generators:
                generator.manual_seed(self._start)
        else:
            set_host_state(self._start)

    def __exit__(self, *_: object) -> None:
        self._own = self._get()
        self._set(self._others)

    def _get(self) -> tuple[Any, ...]:
        # numpy's state is always among them: what is drawn inside may be the first to use it.
        states = [each.get_state() for each in self._generators]
        return random.getstate(), numpy.random.get_state(), torch.default_generator.get_state(), states

    def _set(self, state: tuple[Any, ...]) -> None:
        random.setstate(state[0])
        numpy.random.set_state(state[1])
        torch.default_generator.set_state(state[2])
        for generator, own in zip(self._generators, state[3], strict=True):
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
