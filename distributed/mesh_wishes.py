"""What is asked of a run's mesh, by whom, and the one mesh that gives all of them what they ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from leyden.distributed.mesh_layout import DIMENSIONS


class Wish(NamedTuple):
    """The sizes that somebody asks for; -1 is what is left of the ranks."""

    owner: str
    sizes: dict[str, int]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        return f"{self.owner} asks for {sizes or 'no dimension'}"


def wish_of(owner: object, sizes: Mapping[str, int]) -> Wish:
    """Raises TypeError or ValueError for what is no wish."""
    name = owner if isinstance(owner, str) else type(owner).__name__
    if not isinstance(sizes, Mapping):
        raise TypeError(f'{name} describes a mesh by its dimensions, {{"tensor": 2}} say, but got {sizes!r}')
    if unknown := [each for each in sizes if each not in DIMENSIONS]:
        raise ValueError(
            f"{name} asks for a mesh with the dimension {unknown[0]!r}; the dimensions are: {', '.join(DIMENSIONS)}"
        )
    for dimension, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"{name} asks for a mesh with {dimension}={size!r}, which is no whole number")
        if size < 1 and size != -1:
            raise ValueError(
                f"{name} asks for a mesh with {dimension}={size}; a size is at least 1, or -1 for what is left"
            )
    wish = Wish(name, dict(sizes))
    if len(open_ones := [each for each, size in sizes.items() if size == -1]) > 1:
        raise ValueError(f"{wish}: only one dimension can be -1, what is left, but {' and '.join(open_ones)} are")
    return wish


def together(wishes: list[Wish], world_size: int) -> dict[str, int]:
    """One mesh for all wishes: the size of each dimension that somebody asks for, at most one of them -1.

    Raises ValueError, with the wishes, where two contradict each other, or their sizes do not divide the ranks.
    """
    found: dict[str, tuple[int, Wish]] = {}
    for wish in wishes:
        for name, size in wish.sizes.items():
            before = found.get(name)
            if before is None or before[0] == -1:  # what is left gives way to a number
                found[name] = (size, wish)
            elif size not in (-1, before[0]):
                raise ValueError(f"the mesh of a run has one size of {name}, but {before[1]}, and {wish}")
    open_ones = [(name, wish) for name, (size, wish) in found.items() if size == -1]
    if len(open_ones) > 1:
        (first, one), (second, other) = open_ones[:2]
        raise ValueError(
            f"only one dimension of a mesh can be -1, what is left, but {one}, and {other}: "
            f"give {first} or {second} a number"
        )
    sizes = {name: found[name][0] for name in DIMENSIONS if name in found}
    if world_size % math.prod(size for size in sizes.values() if size > 0):
        raise ValueError(f"{_arithmetic(sizes)}, which does not divide the {world_size} ranks there are{_told(wishes)}")
    return sizes


def settled(wishes: list[Wish], world_size: int) -> dict[str, int]:
    """The sizes of the mesh, now that no wish comes any more; what nobody asked for are replicas. Raises ValueError as
    `together` does, and where ranks would be left over.
    """
    sizes = together(wishes, world_size)
    left = world_size // math.prod(size for size in sizes.values() if size > 0)
    if -1 not in sizes.values() and "replicate" not in sizes:
        sizes["replicate"] = -1
    if -1 not in sizes.values() and left > 1:
        raise ValueError(
            f"{_arithmetic(sizes)}, but there are {world_size} ranks{_told(wishes)}. "
            "Make one of the sizes -1 to give it what is left"
        )
    return {name: left if sizes.get(name) == -1 else sizes.get(name, 1) for name in DIMENSIONS}


def _arithmetic(sizes: Mapping[str, int]) -> str:
    known = [(name, size) for name, size in sizes.items() if size > 0]
    product = math.prod(size for _, size in known)
    return f"the mesh takes {' x '.join(f'{name} {size}' for name, size in known)} = {product} ranks"


def _told(wishes: list[Wish]) -> str:
    return "".join(f"; {wish}" for wish in wishes)
