"""From the data of a run to the data that is iterated, in the one right order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

Change = Callable[[Any], Any]


class DataStage(IntEnum):
    """What happens to the data of a run before it is iterated, whatever the order in which handlers were attached."""

    BATCH = 1
    """The size of batches."""
    DEAL = 2
    """Each rank's share."""
    SEED = 3
    """The randomness of each sample."""
    LIMIT = 4
    """How many batches."""
    TRANSFER = 5
    """Where batches are made ready."""


@runtime_checkable
class CompositeData(Protocol):
    """Data made of several loaders. The stages up to SEED change each loader of it, the later ones the whole."""

    def map_loaders(self, change: Change) -> Any:
        """The same data with each loader changed."""


class DataSetup:
    """The functions that change the data of a run; those of one stage run as they were added."""

    def __init__(self) -> None:
        self._changes: list[tuple[DataStage, Change, str]] = []
        self._outdated: list[Callable[[], bool]] = []
        self.may_give_none = False
        """True if the result may have no batch: a rank's share of an evaluation."""

    def add(
        self, stage: DataStage, change: Change, *, owner: object = "", outdated: Callable[[], bool] | None = None
    ) -> None:
        """Adds a function from data to data; the data that a user gave stays as it is. `owner` as in `Setup.add`.

        `outdated`: for a change that differs from epoch to epoch. It is asked when an epoch begins, before
        EPOCH_STARTED; if it says True, the data goes through all stages again, and the epoch has the new one's length.
        """
        self._changes.append((stage, change, owner if isinstance(owner, str) else type(owner).__name__))
        self._changes.sort(key=lambda item: item[0])
        if outdated is not None:
            self._outdated.append(outdated)

    @contextmanager
    def lending(self, stage: DataStage, change: Change) -> Iterator[None]:
        """Adds the function to its stage, after the others, for as long as the context lasts."""
        before = self._changes
        self._changes = sorted([*before, (stage, change, "")], key=lambda item: item[0])
        try:
            yield
        finally:
            self._changes = before

    @property
    def varies(self) -> bool:
        """True if epochs may have data of different lengths."""
        return bool(self._outdated)

    def is_outdated(self) -> bool:
        """True if the epoch that begins needs its data made anew."""
        return any(outdated() for outdated in self._outdated)

    @property
    def changes(self) -> list[Change]:
        """The functions, in the order in which they run."""
        return [change for _, change, _ in self._changes]

    def __call__(self, data: Any) -> Any:
        for stage, change, _ in self._changes:
            if stage <= DataStage.SEED and isinstance(data, CompositeData):
                data = data.map_loaders(change)
            else:
                data = change(data)
        return data

    def __len__(self) -> int:
        return len(self._changes)

    def describe(self) -> list[str]:
        """A line for each function that has an owner, in the order in which they run."""
        return [f"{stage.name}  {owner}" for stage, _, owner in self._changes if owner]
