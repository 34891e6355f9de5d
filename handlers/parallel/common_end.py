"""Data that each rank has for itself, in passes that end together, so that no rank waits for one that has finished."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from leyden import distributed as dist
from leyden.engine.data import Rest
from leyden.handlers.parallel.dealing import DealtBatches


class Roll:
    """Asks the ranks, batch by batch, whether all of them have one more. All make it at the same point."""

    def __init__(self) -> None:
        self._agreement = dist.Agreement(1)
        self._told = False

    def all_have(self, another: bool) -> bool:
        self._agreement.post([int(another)])
        (having,) = self._agreement.result()
        ranks, shares = dist.world_size(), dist.data_size()
        if 0 < having < ranks and not self._told:
            self._told = True
            if dist.rank() == 0:
                ended = (ranks - having) * shares // ranks  # those that see the same data end together
                warnings.warn(
                    f"the data of {ended} of {shares} ranks ended before that of the others; the pass ends "
                    "there on all ranks, and what is left on the others is not trained on",
                    stacklevel=2,
                )
        return having == ranks


class CommonEnd(DealtBatches):
    """This rank's own batches, in passes that end where the first rank's data ends."""

    ranks = 1

    def __init__(self, batches: Iterable[Any], roll: Roll) -> None:
        self.batches = batches
        self._roll = roll

    def go_on(self, rest: Rest, position: int) -> Rest:
        return Rest(self._together(rest.iterator), rest.left)

    def __iter__(self) -> Iterator[Any]:
        return self._together(iter(self.batches))

    def _together(self, iterator: Iterator[Any]) -> Iterator[Any]:
        while True:
            batch = next(iterator, _END)
            if not self._roll.all_have(batch is not _END):
                return
            yield batch


_END = object()


class CommonEndOfIterator(CommonEnd, Iterator[Any]):
    """The same for an iterator, which can be gone through only once."""

    def __init__(self, batches: Iterator[Any], roll: Roll) -> None:
        super().__init__(batches, roll)
        self._rest = super().__iter__()

    def go_on(self, rest: Rest, position: int) -> Rest:
        self._rest = super().go_on(rest, position).iterator
        return Rest(self, None)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._rest)


class SizedCommonEnd(CommonEnd):
    """The same for data that know their length; `length`: that of the rank with the fewest batches."""

    def __init__(self, batches: Iterable[Any], roll: Roll, length: int) -> None:
        super().__init__(batches, roll)
        self._length = length

    def go_on(self, rest: Rest, position: int) -> Rest:
        left = None if rest.left is None else min(rest.left, max(0, self._length - position))
        return Rest(self._together(rest.iterator), left)

    def __len__(self) -> int:
        return self._length
