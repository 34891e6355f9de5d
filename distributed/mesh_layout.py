"""How the ranks of a run are laid out along named dimensions, and the process groups along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

DIMENSIONS = ("pipeline", "replicate", "shard", "context", "tensor")
"""The dimensions of a mesh, the outermost first: ranks that differ in the last one alone are neighbours."""

DATA_DIMENSIONS = ("replicate", "shard")
"""Those along which ranks see different data."""

_FLATTENED = {"data": DATA_DIMENSIONS, "world": DIMENSIONS}


class Mesh:
    """All ranks of a run, laid out along the dimensions pipeline, replicate, shard, context and tensor.

    Wherever a dimension is named, "data" means replicate and shard together, "world" all of them.

    Args:
        sizes: the size of each dimension, 1 for those left out.
        rank: this process among all.
        make_group: given the ranks of each of several groups, the one that this rank is in; None where no processes
            are joined.
        device_type: of the devices that the ranks compute on, "cuda" say.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        rank: int = 0,
        make_group: Callable[[list[list[int]]], Any] | None = None,
        device_type: str = "cpu",
    ) -> None:
        self.sizes: dict[str, int] = {name: sizes.get(name, 1) for name in DIMENSIONS}
        """The size of each dimension, in their order."""
        self._rank = rank
        self._make_group = make_group
        self._device_type = device_type
        self._groups: dict[tuple[str, ...], Any] = {}
        self._device_mesh: DeviceMesh | None = None

    def __repr__(self) -> str:
        return f"Mesh({in_words(self.sizes)})"

    def size(self, dimension: str) -> int:
        """How many ranks there are along a dimension. Raises ValueError for one that there is not."""
        return math.prod(self.sizes[name] for name in names_of(dimension))

    def rank(self, dimension: str) -> int:
        """This rank's place along a dimension, from 0. Raises ValueError for one that there is not."""
        return self._place(self._rank, names_of(dimension))

    def ranks(self, dimension: str) -> list[int]:
        """The ranks, as the world counts them, that differ from this one in a dimension alone, in its order."""
        names = names_of(dimension)
        return next(row for row in self._rows(names) if self._rank in row)

    def group(self, dimension: str) -> Any:
        """The process group of `ranks(dimension)`, made when it is first asked for, by all that are in it.

        Raises:
            ValueError: there is no such dimension.
            RuntimeError: no processes are joined, so there are no groups.
        """
        names = tuple(name for name in names_of(dimension) if self.sizes[name] > 1)
        if self._make_group is None:
            raise RuntimeError(
                "a process group needs several processes that are joined: start the script with torchrun, and call "
                "leyden.distributed.initialize()"
            )
        if names not in self._groups:
            self._groups[names] = self._make_group(self._rows(names))
        return self._groups[names]

    @property
    def device_mesh(self) -> DeviceMesh:
        """Torch's DeviceMesh of the dimensions that are larger than 1, for fully_shard, parallelize_module and their
        like: `dist.mesh().device_mesh["replicate", "shard"]`. All ranks ask for it. Where none is larger, it is one of
        "replicate". Raises RuntimeError as `group` does.
        """
        if self._device_mesh is None:
            import torch
            from torch.distributed.device_mesh import DeviceMesh

            names = tuple(name for name in DIMENSIONS if self.sizes[name] > 1) or ("replicate",)
            ranks = torch.arange(self.size("world")).view([self.sizes[name] for name in names])
            groups = [self.group(name) for name in names]
            self._device_mesh = DeviceMesh.from_group(groups, self._device_type, ranks, mesh_dim_names=names)
        return self._device_mesh

    def counterpart(self, sizes: Mapping[str, int]) -> int | None:
        """Which rank of another mesh, given by its sizes, has this one's share of the data; None if the data are dealt
        to another number of ranks there. In a mesh of the same sizes that is this very rank.
        """
        other = Mesh(sizes)
        if other.size("data") != self.size("data"):
            return None
        same = [name for name in DIMENSIONS if name not in DATA_DIMENSIONS and other.sizes[name] == self.sizes[name]]
        return other.rank_at(self.rank("data"), {name: self.rank(name) for name in same})

    def rank_at(self, data: int, others: Mapping[str, int] | None = None) -> int:
        """The rank, as the world counts them, at a place along the data, and at 0 or `others` along the rest."""
        at = {**(others or {}), "replicate": data // self.sizes["shard"], "shard": data % self.sizes["shard"]}
        rank = 0
        for name in DIMENSIONS:
            rank = rank * self.sizes[name] + at.get(name, 0)
        return rank

    def _place(self, rank: int, names: Sequence[str]) -> int:
        place, stride = 0, 1
        for name in reversed(DIMENSIONS):
            rank, along = divmod(rank, self.sizes[name])
            if name in names:
                place += along * stride
                stride *= self.sizes[name]
        return place

    def _rows(self, names: Sequence[str]) -> list[list[int]]:
        """All ranks, in lists of those that differ along these dimensions alone."""
        rest = [name for name in DIMENSIONS if name not in names]
        rows: dict[int, list[int]] = {}
        for rank in range(self.size("world")):
            rows.setdefault(self._place(rank, rest), []).append(rank)
        return list(rows.values())


def names_of(dimension: str) -> tuple[str, ...]:
    """The dimensions that a name means. Raises ValueError for a name that means none, TypeError for what is no name."""
    if not isinstance(dimension, str):
        raise TypeError(
            f"a dimension of a mesh is given by its name, one of: {', '.join((*DIMENSIONS, *_FLATTENED))}; "
            f"but got {dimension!r}"
        )
    if dimension in _FLATTENED:
        return _FLATTENED[dimension]
    if dimension not in DIMENSIONS:
        raise ValueError(
            f"a mesh has no dimension {dimension!r}; it has: {', '.join(DIMENSIONS)}; "
            '"data" is replicate and shard together, "world" all of them'
        )
    return (dimension,)


def in_words(sizes: Mapping[str, int]) -> str:
    """ "replicate 2 x tensor 2": the dimensions that are larger than 1."""
    return " x ".join(f"{name} {sizes[name]}" for name in DIMENSIONS if sizes.get(name, 1) > 1) or "one rank"
