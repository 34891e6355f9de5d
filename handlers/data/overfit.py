"""The same few batches again and again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine import DataStage, Engine
from leyden.engine.data import Rest
from leyden.engine.values import SCALAR_TYPES
from leyden.handlers.data.limit_batches import LimitBatches, alike_in_training, batches_of, check_limit
from leyden.handlers.data.passes import Passes
from leyden.handlers.data.seeded_loaders import SeededData


class Overfit:
    """Trains on the same `batches` in each epoch, a number (an int) or a fraction (a float): can the model learn them?

    They are loaded once, when the first epoch begins, and kept in memory; each epoch gets copies. So the loss can go to
    zero: nothing changes between epochs, also where samples are augmented at random and a process function works in
    place, and no time is spent on loading. Which batches of a shuffling loader, and what is drawn in them, follows from
    `state.seed` (0 if there is none), so a run that is resumed has the same.

    Evaluators are left as they are. Raises TypeError and ValueError as `LimitBatches` does.
    """

    def __init__(self, batches: int | float = 1) -> None:
        self.batches = check_limit(batches, "Overfit")
        self._kept: KeptBatches | None = None
        self._engine: Engine[Any, Any] | None = None

    @property
    def same_on_ranks(self) -> tuple[str, ...]:
        return alike_in_training("batches", self._engine)

    def refuses(self, other: Any) -> str | None:
        if isinstance(other, Overfit | LimitBatches):
            return "both say how many batches an epoch has; attach one of them"
        return None

    def attach(self, engine: Engine[Any, Any]) -> None:
        self._engine = engine
        # Passes that follow no engine: each is the first.
        SeededData(Passes(lambda: engine.state.seed or 0)).add_to(engine, "")
        engine.data_setup.add(DataStage.LIMIT, self._keep, owner=self)

    def _keep(self, data: Any) -> Any:
        if data is None:
            return None
        if isinstance(data, Iterator) and (self._kept is None or self._kept.data is not data) and dist.rank() == 0:
            warnings.warn(
                f"Overfit keeps the first batches of an iterator ({type(data).__name__}), which is there only once: a "
                "run that is resumed takes those that the iterator gives then. Give data that can be iterated again",
                stacklevel=2,
            )
        # An iterator can't be gone through again for a second run.
        if self._kept is None or self._kept.data is not data:
            self._kept = KeptBatches(data, batches_of(data, self.batches, "Overfit"))
        return self._kept


class KeptBatches:
    """The first batches of the data, as they came when they were first asked for."""

    dealt_anew = False
    keeps_its_length = True

    def __init__(self, data: Any, batches: int) -> None:
        self.data = data
        self._number = batches
        self._batches: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._batches is None:
            self._batches = list(islice(self.data, self._number))
        return map(_fresh, self._batches)

    def apart(self) -> KeptBatches:
        """The data themselves: the kept batches are the same for every pass."""
        return self

    def pass_state(self, position: int) -> None:
        """Does nothing: the seed determines which batches they are."""

    def load_pass_state(self, state: None) -> None:
        """Does nothing, as there is no state."""

    def go_on_at(self, position: int) -> Rest:
        batches = iter(self)
        assert self._batches is not None
        return Rest(islice(batches, position, None), max(0, len(self._batches) - position))

    def end_pass(self) -> None:
        """Does nothing: all passes are alike."""

    def __len__(self) -> int:
        return min(self._number, len(self.data)) if self._batches is None else len(self._batches)


def _fresh(value: Any) -> Any:
    """A copy that shares no memory; of the usual batches at less cost than copy.deepcopy."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([_fresh(item) for item in value])
    if kind is dict:
        return {key: _fresh(item) for key, item in value.items()}
    return value if kind in SCALAR_TYPES else copy.deepcopy(value)
