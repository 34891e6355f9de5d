"""The shapes and dtypes of states that the data alone know, told to the ranks that saw no data."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from leyden import distributed as dist
from leyden.metrics.state_items import Item, differing

MOST_DIMENSIONS = 8
_UNKNOWN = -(2**62)
_DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
)  # fmt: skip
"""From the narrowest; of two ranks' dtypes the later one is taken."""
_COLUMNS = 4 + 2 * MOST_DIMENSIONS


class Shapes:
    """The greatest of each size and of its negative tell, in one collective that is as large for many ranks as for few,
    whether all ranks with data have one shape, and which.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = list(items)
        self._surprised: set[int] = set()

    def numbers(self) -> torch.Tensor:
        """What this rank gives; the greatest over the ranks goes to `settle`."""
        if not self.items:
            return torch.empty(0, dtype=torch.int64)
        return torch.tensor([_row(item) for item in self.items])

    def settle(self, greatest: torch.Tensor) -> None:
        """Raises ValueError on every rank if the shapes differ; gives the items of ranks without data theirs."""
        rows = greatest.view(len(self.items), _COLUMNS).tolist() if self.items else []
        shapes = {}
        wrong = False
        for item, (surprised, dtype, dims, *sizes) in zip(self.items, rows, strict=True):
            if surprised:
                self._surprised.add(id(item))
            if dims == _UNKNOWN:  # no rank has data
                continue
            most, negated, fewest = sizes[:MOST_DIMENSIONS], sizes[MOST_DIMENSIONS:-1], -sizes[-1]
            shapes[id(item)] = torch.Size(most[:dims]), _DTYPES[dtype]
            wrong |= dims != fewest or most[:dims] != [-size for size in negated[:dims]]
        if wrong:
            self._tell_differing()
        for item in self.items:
            if id(item) in shapes:
                item.take_shape(*shapes[id(item)])

    def surprised(self, item: Item) -> bool:
        """On some rank the item has another shape or dtype than was declared."""
        return id(item) in self._surprised

    def _tell_differing(self) -> None:
        """Raises ValueError for the first item that has different shapes on the ranks, and shows these."""
        mine = [None if item.without_data else tuple(item.local.shape) for item in self.items]
        of_ranks = dist.all_gather_object(mine, over="data")
        for item, shapes in zip(self.items, zip(*of_ranks, strict=True), strict=True):
            if len({shape for shape in shapes if shape is not None}) > 1:
                raise differing(item, [[] if shape is None else [shape] for shape in shapes])


def _row(item: Item) -> list[int]:
    """Whether shape or dtype are a surprise, the dtype, dimensions, sizes, and the same negated; of a rank without data
    what no greatest is made of.
    """
    shape, default = item.local.shape, item.declaration.default
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"a state has at most {MOST_DIMENSIONS} dimensions, but {item.describe()} has {len(shape)}")
    if item.without_data:
        return [0, *[_UNKNOWN] * (_COLUMNS - 1)]
    sizes = [*shape, *[0] * (MOST_DIMENSIONS - len(shape))]
    surprise = shape != default.shape or item.local.dtype != default.dtype
    return [int(surprise), _DTYPES.index(item.local.dtype), len(shape), *sizes, *(-size for size in sizes), -len(shape)]
