"""Where batches come from: one pass over the data after another, and how far the present one has come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any

from leyden.engine.data_pass import DataPass

END = object()


def known_length(data: Any) -> int | None:
    """Batches in one pass, or None where the data does not say."""
    if not isinstance(data, Sized):
        return None
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # a DataLoader over an IterableDataset has __len__, and raises
        return None


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
        self._is_longer = False

    def require_batch(self, iterations: int) -> None:
        """Raises ValueError if the data ended and the run has not had a single batch."""
        if iterations == 0 and not self.may_be_empty:
            raise ValueError(f"the data of the run is empty: {type(self.data).__name__} gave no batch")

    def streams(self, epoch_length: int | None) -> bool:
        """True if a pass goes on over the bounds of epochs: epochs of another length than the data's, or data without
        end.
        """
        return self.one_shot or self.data is None or (epoch_length is not None and epoch_length != self.length)

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

    def end_pass(self) -> None:
        """Ends a pass that has given its last batch as a `for` loop does, which asks for one more: samplers, loaders
        and generators then come to their own end. Data that gives more than its length says is not asked again.
        """
        if self.iterator is not None and not self._is_longer:
            self._is_longer = next(self.iterator, END) is not END

    def forget_pass(self) -> None:
        """What is saved from now on is the moment before a new pass."""
        if self._pass is not None:
            self._pass.end()

    def state_dict(self, position: int) -> dict[str, Any]:
        """What a pass of which `position` batches were used needs to go on in another process; for this rank."""
        return {} if self._pass is None else self._pass.state_dict(position)
