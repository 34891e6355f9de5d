"""Datasets whose samples draw from seeds of their own, wherever they are loaded. All can be pickled to workers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy
import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    get_worker_info,
)

from leyden.engine.data import END
from leyden.engine.randomness import Aside, Stream, seed_host
from leyden.handlers.data.generators import derive_seed


class Draw(NamedTuple):
    """What a seeded sampler yields: the index, or the indices of a batch, and the seed of the pass."""

    seed: int
    index: Any


class Fetched(NamedTuple):
    """A sample or a batch of samples on its way to the collate function, and the seed of that."""

    seed: int
    value: Any


def _apart() -> AbstractContextManager[None]:
    """In the main process the draws of samples leave no trace; a worker's generators serve nothing else."""
    return nullcontext() if get_worker_info() is not None else Aside()


class _Wrapped:
    """Attributes are the dataset's, to get and to set: a `worker_init_fn` may do so."""

    _OWN: tuple[str, ...] = ("dataset",)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self._OWN:  # asked for by pickle and copy before anything is there
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)


class SeededSamples(_Wrapped, Dataset[Any]):
    """A dataset that seeds python's, numpy's and torch's generators before each sample, from the pass and its index."""

    _OWN = ("dataset", "hands_on_seed")

    def __init__(self, dataset: Any, hands_on_seed: bool) -> None:
        self.dataset = dataset
        self.hands_on_seed = hands_on_seed

    def __getitem__(self, draw: Any) -> Any:
        if not isinstance(draw, Draw):
            return self.dataset[draw]
        with _apart():
            value = self._sample(draw.seed, draw.index)
        return self._hand_on(value, draw.seed, _plain(draw.index))

    def __getitems__(self, draw: Draw) -> Any:
        indices = [_plain(index) for index in draw.index]
        with _apart():
            if fetches_at_once(self.dataset):
                seed_host(derive_seed(draw.seed, indices))
                value = self.dataset.__getitems__(draw.index)
            else:
                value = [self._sample(draw.seed, index) for index in draw.index]
        return self._hand_on(value, draw.seed, indices)

    def _sample(self, seed: int, index: Any) -> Any:
        seed_host(derive_seed(seed, _plain(index)))
        return self.dataset[index]

    def _hand_on(self, value: Any, seed: int, indices: Any) -> Any:
        return Fetched(derive_seed(seed, "collate", indices), value) if self.hands_on_seed else value


class CollateSeeded:
    """A collate function that draws (masks of tokens, say) from a seed of its batch."""

    def __init__(self, collate_fn: Callable[[Any], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, fetched: Fetched) -> Any:
        with _apart():
            seed_host(fetched.seed)
            return self.collate_fn(fetched.value)


class SeededStream(_Wrapped, IterableDataset[Any]):
    """An iterable dataset whose draws follow from the pass and the worker that iterates it."""

    _OWN = ("dataset", "pass_seed", "stream")

    def __init__(self, dataset: Any, pass_seed: torch.Tensor) -> None:
        self.dataset = dataset
        self.pass_seed = pass_seed
        self.stream: Stream | None = None

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        seed = derive_seed(int(self.pass_seed), 0 if worker is None else worker.id)
        if worker is not None:
            seed_host(seed)
            return iter(self.dataset)
        self.stream = Stream(seed)
        return self._iterate(self.stream)

    def _iterate(self, stream: Stream) -> Iterator[Any]:
        with stream:
            iterator = iter(self.dataset)
        while True:
            with stream:
                item = next(iterator, END)
            if item is END:
                return
            yield item


class CollateStream:
    """A collate function that draws where the samples of an iterable dataset do, as it does in a worker."""

    def __init__(self, collate_fn: Callable[[Any], Any], dataset: SeededStream) -> None:
        self.collate_fn = collate_fn
        self.dataset = dataset

    def __call__(self, samples: Any) -> Any:
        with nullcontext() if self.dataset.stream is None else self.dataset.stream:
            return self.collate_fn(samples)


def fetches_at_once(dataset: Any) -> bool:
    """True if the dataset itself fetches all samples of a batch in one call; a Subset only hands such a call on."""
    if isinstance(dataset, Subset) and type(dataset).__getitems__ is Subset.__getitems__:
        return fetches_at_once(dataset.dataset)
    if type(dataset) is StackDataset:
        parts = dataset.datasets
        return any(map(fetches_at_once, parts.values() if isinstance(parts, dict) else parts))
    return callable(getattr(dataset, "__getitems__", None))


def draws_nothing(dataset: Any) -> bool:
    """True if getting a sample can't draw a random number, so that no seed is needed."""
    if type(dataset) is Subset:
        return draws_nothing(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(map(draws_nothing, dataset.datasets))
    return type(dataset) in (TensorDataset, list, tuple, range, torch.Tensor, numpy.ndarray)


def _plain(index: Any) -> Any:
    """An index as a number of python's, if it is one of numpy's or torch's, which print otherwise."""
    try:
        return operator.index(index)
    except TypeError:
        return index
