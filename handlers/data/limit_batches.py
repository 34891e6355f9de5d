"""Fewer batches an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

from leyden.engine import DataStage, Engine, Events, Order
from leyden.engine.data import Rest
from leyden.engine.values import as_whole
from leyden.handlers.data.wrapping import WrappedData
from leyden.handlers.parallel.dealing import has_length


class LimitBatches:
    """Ends each epoch after `limit` batches: a number (an int), or a fraction of the data's batches (a float, 0 to 1).

    `1` is one batch, `1.0` are all. Each epoch begins its data anew; of data that has fewer batches all are taken. It
    is for the engine it is attached to: evaluators that a trainer runs take one of their own.

    Raises TypeError and ValueError for a limit that is neither; when a run starts: ValueError for a fraction of which
    no batch is left or of data without a length, for an iterator, which can't begin anew. An epoch_length above the
    limit is told in a warning.
    """

    def __init__(self, limit: int | float) -> None:
        self.limit = check_limit(limit, "LimitBatches")
        self._batches: int | None = None  # of the data of the run
        self._engine: Engine[Any, Any] | None = None

    @property
    def same_on_ranks(self) -> tuple[str, ...]:
        return alike_in_training("limit", self._engine)

    def refuses(self, other: Any) -> str | None:
        return "both say how many batches an epoch has; attach one of them" if isinstance(other, LimitBatches) else None

    def attach(self, engine: Engine[Any, Any]) -> None:
        self._engine = engine
        engine.data_setup.add(DataStage.LIMIT, self._limit, owner=self)
        engine.add_event_handler(Events.STARTED, self._check_length, order=Order.SEEDS)

    def _check_length(self, engine: Engine[Any, Any]) -> None:
        length = engine.state.epoch_length
        if self._batches is not None and length is not None and length > self._batches:
            warnings.warn(
                f"epoch_length={length} asks for more batches an epoch than the {self._batches} of "
                f"LimitBatches({self.limit}), which begins them anew within the epoch; give only one of the two, if "
                "that is not meant",
                stacklevel=2,
            )

    def _limit(self, data: Any) -> Any:
        if data is None:
            return None
        if isinstance(data, Iterator):
            raise ValueError(
                f"LimitBatches begins its data anew in each epoch, which an iterator ({type(data).__name__}) can't; "
                "run(data, epoch_length=n) takes n batches an epoch from it"
            )
        self._batches = batches_of(data, self.limit, "LimitBatches")
        return LimitedData(data, self._batches, is_share=isinstance(self.limit, float))


class LimitedData(WrappedData):
    """The first batches of the data, in each pass over it. `is_share`: a part of its batches, however many it has."""

    def __init__(self, data: Any, batches: int, *, is_share: bool = False) -> None:
        super().__init__(data)
        self._batches = batches
        self._is_share = is_share

    def go_on(self, rest: Rest, position: int) -> Rest:
        if self._is_share and rest.left is not None:
            position = len(self.data) - rest.left  # other ranks may have taken more or fewer batches so far
        wanted = max(0, self._batches - position)
        left = None if rest.left is None else min(wanted, rest.left)
        return Rest(islice(rest.iterator, wanted), left)

    def __iter__(self) -> Iterator[Any]:
        return islice(self.data, self._batches)

    def __len__(self) -> int:
        return min(self._batches, len(self.data))


def alike_in_training(setting: str, engine: Engine[Any, Any] | None) -> tuple[str, ...]:
    """What of a number of batches ranks compare: where they train together, none can have more than another; an
    evaluation may have as many as its rank wants.
    """
    return (setting,) if engine is not None and engine.updates else ()


def check_limit(limit: Any, who: str) -> int | float:
    """The number of batches as an int, or the fraction. Raises TypeError or ValueError for any other limit."""
    whole = as_whole(limit)
    if whole is None and not isinstance(limit, float):
        raise TypeError(f"{who} takes a number of batches (an int) or a fraction of them (a float), but got {limit!r}")
    if whole is not None and whole < 1:
        raise ValueError(f"{who} needs at least 1 batch, but got {limit}")
    if isinstance(limit, float) and not 0 < limit <= 1:
        raise ValueError(
            f"{who} takes a fraction above 0.0 and up to 1.0, or a whole number of batches as an int, but got {limit}"
        )
    return float(limit) if whole is None else whole


def batches_of(data: Any, limit: int | float, who: str) -> int:
    """How many batches of the data the limit means. Raises ValueError if that is unknown or zero."""
    if (whole := as_whole(limit)) is not None:
        return whole
    if not has_length(data):
        raise ValueError(
            f"{who}({limit}) is a fraction of the data's batches, but the length of {type(data).__name__} is not "
            "known; give their number as an int"
        )
    total = len(data)
    batches = int(total * limit + 1e-9)  # 0.29 * 100 is a little less than 29
    if batches == 0 and total > 0:
        raise ValueError(f"{who}({limit}) of {total} batches is 0 batches; give at least {1 / total:.2g}, or an int")
    return batches
