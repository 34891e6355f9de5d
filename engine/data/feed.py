"""Where batches come from: one pass over the data after another, and how far the present one has come."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain, islice, repeat
from typing import Any

from leyden import distributed as dist
from leyden.engine.data.data_pass import DataPass
from leyden.engine.data.index_order import END
from leyden.engine.data.pass_length import keeps_its_length, known_length


@dataclass
class Cursor:
    """Where a run stands in its epoch and its data, in iterations done when each of them began."""

    epoch_open: bool = False
    """EPOCH_STARTED was fired, EPOCH_COMPLETED not yet."""
    epoch_cut: bool = False
    """`terminate_epoch` ended it; only its last event is still to come."""
    epoch_start: int = 0
    pass_start: int = 0
    """When the present pass over the data began."""

    def take_over(self, other: Cursor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(other, field.name))


class Feed:
    """The iterator over a run's data. `data` None gives None for ever.

    `state`: of the feed of the run that is gone on with.

    Raises TypeError if the data can't be iterated, ValueError if it says that it is empty; a rank's share of it may be.
    """

    def __init__(
        self, data: Iterable[Any] | None, *, may_be_empty: bool = False, state: Mapping[str, Any] | None = None
    ) -> None:
        if data is not None and not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
            raise TypeError(
                "the data of a run must be iterable (a DataLoader, a list of batches, ...), "
                f"but is {type(data).__name__}"
            )
        self.data = data
        self.length = known_length(data)
        """Batches in a pass as the data says, for bars and fractions; None where it does not say."""
        self.keeps_its_length = self.length is not None and keeps_its_length(data)
        """True if a pass has just as many; else it is the pass that tells, when it ends."""
        self.may_be_empty = may_be_empty
        if self.length == 0 and not may_be_empty:
            raise ValueError(
                f"the data of the run is empty: len({type(data).__name__}) is 0, so there is no batch to run on"
            )
        self.one_shot = isinstance(data, Iterator)
        """True if the data can be gone through only once."""
        self.iterator: Iterator[Any] | None = None
        """The present pass; None until it is begun."""
        self._pass = None if data is None else DataPass(data, state)

    def require_batch(self, iterations: int) -> None:
        """Raises ValueError if the data ended without giving the run a single batch."""
        if iterations == 0 and not self.may_be_empty:
            raise ValueError(f"the data of the run is empty: {type(self.data).__name__} gave no batch")

    def streams(self, epoch_length: int | None) -> bool:
        """True if a pass runs on from one epoch to the next: other epochs than the data's, or endless data."""
        return self.one_shot or self.data is None or (epoch_length is not None and epoch_length != self.length)

    @property
    def exact_length(self) -> int | None:
        """Batches in a pass; None if only going through it can tell."""
        return self.length if self.keeps_its_length else None

    def measure(self) -> bool:
        """Reads the length again, since a dataset may have grown; True if it has changed."""
        before = self.length
        if self.keeps_its_length:
            self.length = known_length(self.data)
        return self.length != before

    def begin_pass(self) -> None:
        """Begins a new pass."""
        self.iterator = repeat(None) if self._pass is None else self._pass.begin()

    def go_on(self, position: int) -> None:
        """Goes on with a pass of which `position` batches were used, in this process or another."""
        self.iterator = repeat(None) if self._pass is None else self._pass.go_on(position)

    @property
    def left(self) -> int | None:
        """Batches that were left of the pass when it was gone on with, if what was left was dealt anew."""
        return None if self._pass is None else self._pass.left

    def tell_of_more(self) -> None:
        """Lets a warning tell of a pass that has gone far beyond what its length says: it may have no end."""
        if self.iterator is not None and self.length is not None:
            self.iterator = _telling_of_more(self.iterator, type(self.data).__name__, self.length)

    def end_pass(self) -> None:
        """Ends a pass that has given its last batch as a `for` loop does, which asks for one more: samplers, loaders
        and generators then come to their own end.
        """
        if self.iterator is not None:
            next(self.iterator, None)

    def forget_pass(self) -> None:
        """From now on the moment before a new pass is what is saved."""
        if self._pass is not None:
            self._pass.end()

    def state_dict(self, position: int) -> dict[str, Any]:
        """What a pass of which `position` batches were used needs to go on in another process; for this rank."""
        return {} if self._pass is None else self._pass.state_dict(position)


def _telling_of_more(batches: Iterator[Any], name: str, length: int) -> Iterator[Any]:
    """The same batches, at no cost in Python for those before the warning."""
    enough = max(2 * length, length + 16)  # samples that are shared out to workers end in a few more batches
    return chain(islice(batches, enough), _tell_of_next(batches, name, length, enough))


def _tell_of_next(batches: Iterator[Any], name: str, length: int, given: int) -> Iterator[Any]:
    if (batch := next(batches, END)) is END:
        return
    if dist.rank() == 0:
        warnings.warn(
            f"the data of the run ({name}) has the length {length}, but has given {given} batches, and more. An epoch "
            "is one pass over the data, whatever its length says; for data without end give run() an epoch_length",
            stacklevel=2,
        )
    yield batch
    yield from batches
