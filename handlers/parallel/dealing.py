"""Deals a run's data to the ranks, each sample to one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from leyden import distributed as dist
from leyden.distributed.compat import forget_pass, replace_part
from leyden.engine import CompositeData
from leyden.engine.data import DataLayer, Rest, SamplerLayer, chain, index_sampler, only_batches, own_generators
from leyden.engine.randomness import Stream


class Deal:
    """Deals items to ranks: rank `rank` of `world_size` takes every `world_size`-th item, beginning with the `rank`-th.

    `even`: every rank gets the same number, as training needs (the first items come again to fill the last round up);
    else what is left over goes to the first ranks, so that an evaluation sees each sample once. The order of items is
    drawn from `seed`, the epoch and the number of the pass in it, so it is the same on all ranks; that of each loader
    of a run, which its `number` tells, is another. None for `rank` and `world_size` stands for those of the data in the
    run's mesh, which is known when the first item is dealt.
    """

    def __init__(self, rank: int | None, world_size: int | None, seed: int, even: bool, number: int = 0) -> None:
        self._rank = rank
        self._world_size = world_size
        self.seed = seed
        self.even = even
        self._number = number
        self._epoch = 0
        self._passes = 0
        self._of_loaders: list[Deal] = []
        self._given = 0

    @property
    def rank(self) -> int:
        return dist.data_rank() if self._rank is None else self._rank

    @property
    def world_size(self) -> int:
        return dist.data_size() if self._world_size is None else self._world_size

    def begin_data(self, data: Any) -> Any:
        """Called before the loaders of a run's data are dealt."""
        self._given = 0
        return data

    def of_loader(self) -> Deal:
        """The deal of the next loader of the data, which counts its own passes."""
        if self._given == len(self._of_loaders):
            deal = Deal(self._rank, self._world_size, self.seed, self.even, self._given)
            deal._epoch = self._epoch
            self._of_loaders.append(deal)
        self._given += 1
        return self._of_loaders[self._given - 1]

    def reseed(self, seed: int) -> None:
        """Takes another seed from the next pass on."""
        self.seed = seed
        for deal in self._of_loaders:
            deal.seed = seed

    def follow(self, seed: int) -> None:
        """Draws the next pass from this seed alone."""
        self.seed = seed
        self._number = self._epoch = self._passes = 0

    def set_epoch(self, epoch: int) -> None:
        """Called when an epoch begins, before its first pass over the data."""
        self._epoch = epoch
        self._passes = 0
        for deal in self._of_loaders:
            deal.set_epoch(epoch)

    def go_on_in(self, epoch: int) -> None:
        """Called when a run goes on in the midst of an epoch, of which passes may have been counted."""
        for deal in (self, *self._of_loaders):
            if deal._epoch != epoch:
                deal._epoch, deal._passes = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """What the next pass is drawn from."""
        return {"seed": self.seed, "number": self._number, "epoch": self._epoch, "passes": self._passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seed, self._number = state["seed"], state["number"]
        self._epoch, self._passes = state["epoch"], state["passes"]

    def count(self, total: int) -> int:
        """How many of `total` items this rank gets."""
        if self.even:
            return -(-total // self.world_size)
        return len(range(self.rank, total, self.world_size))

    def pick(self, items: Iterable[Any]) -> list[Any]:
        """This rank's share of one pass, drawn in the common order."""
        with Stream(self._next_seed(), own_generators(items)):
            drawn = list(items)
        if self.even and drawn:
            missing = -len(drawn) % self.world_size
            drawn += (drawn * (-(-missing // len(drawn))))[:missing]
        return drawn[self.rank :: self.world_size]

    def pick_as_they_come(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same for items without a known end."""
        randomness = Stream(self._next_seed(), own_generators(items))
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

    def order_seed(self) -> int:
        """What the order of the next pass is drawn from."""
        return (self.seed + 1_000_003 * self._epoch + 7_919 * self._passes + 104_729 * self._number) % 2**63

    def _next_seed(self) -> int:
        seed = self.order_seed()
        self._passes += 1
        return seed


class DealtSampler(SamplerLayer):
    """This rank's share of what a sampler (of indices or of batches) yields."""

    def __init__(self, sampler: Any, deal: Deal) -> None:
        self.sampler = sampler
        self.deal = deal

    @property
    def inner(self) -> Any:
        return self.sampler

    @property
    def ranks(self) -> int:  # type: ignore[override]
        return self.deal.world_size

    def over(self, inner: Any) -> DealtSampler:
        return DealtSampler(inner, self.deal)

    def order_seed(self) -> int:
        return self.deal.order_seed()

    def pass_state(self) -> dict[str, int]:
        return self.deal.state_dict()

    def load_pass_state(self, state: dict[str, int]) -> None:
        self.deal.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:
        if has_length(self.sampler):
            return iter(self.deal.pick(self.sampler))
        return self.deal.pick_as_they_come(self.sampler)

    def __len__(self) -> int:
        return self.deal.count(len(self.sampler))


class DealtBatches(DataLayer):
    """This rank's share of the batches of an iterable, which each rank reads whole."""

    def __init__(self, batches: Iterable[Any], deal: Deal) -> None:
        self.batches = batches
        self.deal = deal
        self.compare: Callable[[list[Any]], None] | None = None
        """Called with the first batches that are read, of which the ranks keep one each."""

    @property
    def ranks(self) -> int:  # type: ignore[override]
        return self.deal.world_size

    def inner_data(self) -> Any:
        return self.batches

    def go_on(self, rest: Rest, position: int) -> Rest:
        left = rest.left
        if left is not None:
            left = left // self.deal.world_size if self.deal.even else self.deal.count(left)
        return Rest(self._share(rest.iterator, came=position > 0), left)

    def __iter__(self) -> Iterator[Any]:
        return self._share(iter(self.batches), came=False)

    def _share(self, iterator: Iterator[Any], came: bool) -> Iterator[Any]:
        rank, world_size = self.deal.rank, self.deal.world_size
        while len(round_of := self._round(iterator)) == world_size:
            came = True
            yield round_of[rank]
        if not (came or round_of):  # on every rank alike, unlike an empty share
            raise ValueError(f"the data of the run is empty: {type(self.batches).__name__} gave no batch")
        if not self.deal.even and rank < len(round_of):
            yield round_of[rank]

    def _round(self, iterator: Iterator[Any]) -> list[Any]:
        batches = list(islice(iterator, self.deal.world_size))
        if self.compare is not None:
            compare, self.compare = self.compare, None
            compare(batches)
        return batches


class DealtIterator(DealtBatches, Iterator[Any]):
    """The same for an iterator, which like it can be gone through only once."""

    def __init__(self, batches: Iterator[Any], deal: Deal) -> None:
        super().__init__(batches, deal)
        self._rounds = super().__iter__()

    def go_on(self, rest: Rest, position: int) -> Rest:
        self._rounds = super().go_on(rest, position).iterator
        return Rest(self, None)

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
    """The data as this rank iterates it; a DataLoader keeps all its settings, its batch size being that of one
    rank.

    A loader with a sampler that knows its rank is already dealt and is returned as it is. A custom batch sampler is
    dealt by whole batches; an iterable without random access is read by every rank, which keeps its share of the
    batches.
    """
    if data is None or isinstance(data, DealtBatches):
        return data
    if not isinstance(data, DataLoader):
        return _deal_batches(data, deal)
    if isinstance(data.dataset, IterableDataset):
        return _deal_batches(data, deal)
    if own_place(data) is not None:
        return data
    dealt = copy.copy(data)
    deal = deal.of_loader()
    batches: Any = data.batch_sampler
    if batches is None:
        replace_part(dealt, "sampler", DealtSampler(data.sampler, deal))
    elif only_batches(batches):
        sampler = DealtSampler(batches.sampler, deal)
        replace_part(dealt, "sampler", sampler)
        replace_part(dealt, "batch_sampler", type(batches)(sampler, batches.batch_size, batches.drop_last))
    else:
        replace_part(dealt, "batch_sampler", DealtSampler(batches, deal))
    forget_pass(dealt)
    return dealt


def own_place(loader: DataLoader[Any]) -> tuple[Any, tuple[int, int] | None] | None:
    """The sampler by which the loader is dealt already, and its (rank, number of ranks), None for a deal of leyden's;
    None if it is not dealt.
    """
    for sampler in _samplers(loader):
        if isinstance(sampler, DealtSampler):
            return sampler, None
        if not isinstance(sampler, SamplerLayer) and (place := dist.place_of_sampler(sampler)) is not None:
            return sampler, place
    return None


def set_epoch_of_sampler(data: Any, epoch: int) -> None:
    """Calls `set_epoch` on a user's own distributed samplers, wherever they are in the data; without it each epoch has
    the same order.
    """
    for loader in _loaders(data):
        for sampler in _samplers(loader):
            has_rank = isinstance(sampler, DistributedSampler) or dist.place_of_sampler(sampler) is not None
            if has_rank and not isinstance(sampler, SamplerLayer) and callable(getattr(sampler, "set_epoch", None)):
                sampler.set_epoch(epoch)


def _loaders(data: Any) -> list[DataLoader[Any]]:
    while isinstance(data, DataLayer):
        data = data.inner_data()
    if not isinstance(data, CompositeData):
        return [data] if isinstance(data, DataLoader) else []
    found: list[DataLoader[Any]] = []

    def note(each: Any) -> Any:
        found.extend(_loaders(each))
        return each

    data.map_loaders(note)
    return found


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


def _samplers(loader: DataLoader[Any]) -> list[Any]:
    """The loader's samplers, the outermost first."""
    links = chain(index_sampler(loader))
    return links if any(loader.sampler is link for link in links) else [*links, loader.sampler]
