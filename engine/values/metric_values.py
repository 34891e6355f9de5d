"""The metrics of a run by name: a dict of plain numbers, into which scalar tensors may be put."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    ReadThrough: TypeAlias = dict[str, Any]
else:

    class ReadThrough(MutableMapping, dict):
        """A dict whose every access goes through __getitem__ and __setitem__."""


class Counts(Protocol):
    """How far a run is."""

    iteration: int
    step: int


class Deferred:
    """A value that is computed when it is read."""

    __slots__ = ("compute",)

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute


class MetricValues(ReadThrough):
    """The metrics of a run by name. A scalar tensor, or a number of numpy's, may be put in; it comes out as a plain
    number, so that the whole can be written as JSON.

    The copy to the host happens when someone reads, so that a handler may put in a value at each step without waiting.
    """

    times_set: dict[str, int]
    """How often each was set: lets a reader tell a new value from one of an earlier evaluation."""
    counts: Counts | None
    """The counts of the run whose metrics these are."""
    set_at: dict[str, int]
    """Iterations and optimizer steps, added up, as each was set: tells a value of the weights that are there from one
    of earlier weights. One that was restored has none.
    """

    def __new__(cls, *_: Any, **__: Any) -> MetricValues:
        values = super().__new__(cls)
        values.times_set = {}
        values.set_at = {}
        values.counts = None
        return values

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:
        self.update(values, **more)

    def __getitem__(self, name: str) -> Any:
        try:
            value = dict.__getitem__(self, name)
        except KeyError:
            there = ", ".join(sorted(map(str, self))) or "none yet"
            raise KeyError(f"no metric {name!r}; there are: {there}") from None
        if type(value) is Deferred:
            value = value.compute()
        scalar = isinstance(value, torch.Tensor) and value.ndim == 0
        return value.item() if scalar or isinstance(value, np.generic) else value

    def __setitem__(self, name: str, value: Any) -> None:
        dict.__setitem__(self, name, value)
        self.times_set[name] = self.times_set.get(name, 0) + 1
        if (counts := self.counts) is not None:
            self.set_at[name] = counts.iteration + counts.step

    def settle(self, name: str) -> None:
        """Has that one stay as it is now, also if it is computed when it is read."""
        dict.__setitem__(self, name, self[name])

    def is_of_now(self, name: str) -> bool:
        """Whether no iteration has begun, and no optimizer step was made, since this was set."""
        counts = self.counts
        return counts is not None and self.set_at.get(name) == counts.iteration + counts.step

    def __delitem__(self, name: str) -> None:
        dict.__delitem__(self, name)

    # That of its own, beside dict's, also lets dict(values) and {**values} read through __getitem__.
    def __iter__(self) -> Iterator[str]:
        return dict.__iter__(self)

    def __reversed__(self) -> Iterator[str]:
        return dict.__reversed__(self)

    def __len__(self) -> int:
        return dict.__len__(self)

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, name)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __or__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return dict(self) | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return dict(other) | dict(self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> MetricValues:  # type: ignore[override]
        self.update(other)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (dict(self), dict(self.times_set))

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def copy(self) -> dict[str, Any]:
        """A plain dict of the numbers as they are now."""
        return dict(self)

    def replace(self, values: Mapping[str, Any]) -> None:
        """Replaces all of them with these."""
        values = dict(values)
        for name in [name for name in self if name not in values]:
            del self[name]
        self.update(values)


def _rebuilt(values: dict[str, Any], times_set: dict[str, int]) -> MetricValues:
    metrics = MetricValues(values)
    metrics.times_set = times_set
    return metrics
