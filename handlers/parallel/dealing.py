"""How a run's data is dealt to the ranks: each sample to one of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import numpy
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler


class Deal:
    """Who gets what: rank `rank` of `world_size` takes every `world_size`-th item, beginning with the `rank`-th.

    `even`: every rank gets the same number, as training needs (the first items come again to fill the last round up);
    else what is left over goes to the first ranks, so that an evaluation sees each sample once. The order of items is
    drawn from `seed` and the epoch, so it is the same on all ranks.
    """

    def __init__(self, rank: int, world_size: int, seed: int, even: bool) -> None:
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.even = even
        self._epoch = 0
        self._passes = 0

    def set_epoch(self, epoch: int) -> None:
        """Called when an epoch begins, before its first pass over the data."""
        self._epoch = epoch
        self._passes = 0

    def count(self, total: int) -> int:
        """How many of `total` items this rank gets."""
        if self.even:
            return -(-total // self.world_size)
        return len(range(self.rank, total, self.world_size))

    def pick(self, items: Iterable[Any]) -> list[Any]:
        """This rank's share of one pass, drawn in the common order."""
        with _CommonRandomness(self._next_seed()):
            drawn = list(items)
        if self.even and drawn:
            missing = -len(drawn) % self.world_size
            drawn += (drawn * (-(-missing // len(drawn))))[:missing]
        return drawn[self.rank :: self.world_size]

    def pick_as_they_come(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same for items without a known end."""
        randomness = _CommonRandomness(self._next_seed())
        with randomness:
            iterator = iter(items)
        first: list[Any] = []
        while True:
            with randomness:
                round_of = list(islice(iterator, self.world_size))
            first = first or round_of
            if self.even and round_of and first:
                round_of += (first * self.world_size)[: self.world_size - len(round_of)]
            if self.rank >= len(round_of):
                return
            yield round_of[self.rank]

    def _next_seed(self) -> int:
        self._passes += 1
        return (self.seed + 1_000_003 * self._epoch + 7_919 * (self._passes - 1)) % 2**63


class _CommonRandomness:
    """Draws inside follow a seed, each time from where the last ones ended; the generators of python, numpy and torch
    are then as they were."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._own: tuple[Any, ...] | None = None

    def __enter__(self) -> None:
        self._others = self._get()
        if self._own is not None:
            self._set(self._own)
        else:
            torch.default_generator.manual_seed(self._seed)
            random.seed(self._seed)
            numpy.random.seed(self._seed % 2**32)

    def __exit__(self, *_: object) -> None:
        self._own = self._get()
        self._set(self._others)

    @staticmethod
    def _get() -> tuple[Any, ...]:
        return torch.get_rng_state(), random.getstate(), numpy.random.get_state()

    @staticmethod
    def _set(states: tuple[Any, ...]) -> None:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        numpy.random.set_state(states[2])


class DealtSampler(Sampler[Any]):
    """This rank's share of what a sampler (of indices or of batches) yields."""

    def __init__(self, sampler: Any, deal: Deal) -> None:
        self.sampler = sampler
        self.deal = deal

    def __iter__(self) -> Iterator[Any]:
        if has_length(self.sampler):
            return iter(self.deal.pick(self.sampler))
        return self.deal.pick_as_they_come(self.sampler)

    def __len__(self) -> int:
        return self.deal.count(len(self.sampler))


class DealtBatches:
    """This rank's share of the batches of an iterable, which each rank reads whole."""

    def __init__(self, batches: Iterable[Any], deal: Deal) -> None:
        self.batches = batches
        self.deal = deal

    def __iter__(self) -> Iterator[Any]:
        rank, world_size = self.deal.rank, self.deal.world_size
        iterator = iter(self.batches)
        came = False
        while len(round_of := list(islice(iterator, world_size))) == world_size:
            came = True
            yield round_of[rank]
        if not (came or round_of):  # on every rank alike, unlike an empty share
            raise ValueError(f"the data of the run is empty: {type(self.batches).__name__} gave no batch")
        if not self.deal.even and rank < len(round_of):
            yield round_of[rank]


class DealtIterator(DealtBatches, Iterator[Any]):
    """The same for an iterator, which like it can be gone through only once."""

    def __init__(self, batches: Iterator[Any], deal: Deal) -> None:
        super().__init__(batches, deal)
        self._rounds = super().__iter__()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._rounds)


class SizedDealtBatches(DealtBatches):
    """The same for an iterable that knows its length. Raises ValueError if training would leave a rank without a
    batch.
    """

    def __init__(self, batches: Iterable[Any], deal: Deal) -> None:
        super().__init__(batches, deal)
        total = len(batches)  # type: ignore[arg-type]
        if deal.even and 0 < total < deal.world_size:
            raise ValueError(f"{deal.world_size} ranks can't train on {total} batches; give data with more of them")

    def __len__(self) -> int:
        total = len(self.batches)  # type: ignore[arg-type]
        return total // self.deal.world_size if self.deal.even else self.deal.count(total)


def deal_data(data: Any, deal: Deal) -> Any:
    """The data as this rank shall iterate it; a DataLoader keeps all its settings, its batch size being that of one
    rank.

    A loader that has a DistributedSampler is dealt already and comes back as it is. A custom batch sampler is dealt by
    whole batches; an iterable without random access is read by every rank, which keeps its share of the batches.
    """
    if data is None or isinstance(data, DealtBatches):
        return data
    if not isinstance(data, DataLoader):
        return _deal_batches(data, deal)
    if _sampler_of(data, DistributedSampler | DealtSampler) is not None:
        return data
    if isinstance(data.dataset, IterableDataset):
        return _deal_batches(data, deal)
    dealt = copy.copy(data)
    batches = data.batch_sampler
    if batches is None:
        _replace(dealt, "sampler", DealtSampler(data.sampler, deal))
    elif type(batches) is BatchSampler:
        sampler = DealtSampler(batches.sampler, deal)
        _replace(dealt, "sampler", sampler)
        _replace(dealt, "batch_sampler", BatchSampler(sampler, batches.batch_size, batches.drop_last))
    else:
        _replace(dealt, "batch_sampler", DealtSampler(batches, deal))
    return dealt


def set_epoch_of_sampler(data: Any, epoch: int) -> None:
    """Tells a user's DistributedSampler which epoch begins; without that each epoch has the same order."""
    sampler = _sampler_of(data, DistributedSampler) if isinstance(data, DataLoader) else None
    if sampler is not None:
        sampler.set_epoch(epoch)


def _deal_batches(data: Iterable[Any], deal: Deal) -> DealtBatches:
    if isinstance(data, Iterator):
        return DealtIterator(data, deal)
    return SizedDealtBatches(data, deal) if has_length(data) else DealtBatches(data, deal)


def has_length(data: Any) -> bool:
    """True if len() of it works: a loader over an IterableDataset or a sampler without end may only seem to have
    one.
    """
    try:
        return isinstance(data, Sized) and len(data) >= 0
    except (TypeError, NotImplementedError):
        return False


def _sampler_of(loader: DataLoader[Any], kind: Any) -> Any:
    """The loader's sampler of that kind, at whichever of its three places; None if it has none."""
    places = (loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    return next((sampler for sampler in places if isinstance(sampler, kind)), None)


def _replace(loader: DataLoader[Any], name: str, value: Any) -> None:
    # A DataLoader forbids assigning these, since its own iterator may be at work; this copy has none.
    object.__setattr__(loader, "_iterator", None)
    object.__setattr__(loader, name, value)
