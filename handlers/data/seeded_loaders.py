"""Loaders that draw orders, workers' seeds and samples from the seed of each pass, and nothing from the process."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe, default_collate, default_convert

from leyden.distributed.compat import forget_pass, replace_part
from leyden.engine import DataStage, Engine
from leyden.engine.data import (
    DRAW_AT_ONCE,
    END,
    SamplerLayer,
    chain,
    index_sampler,
    only_batches,
    own_generators,
    place_of_indices,
)
from leyden.engine.randomness import Stream
from leyden.handlers.data.passes import Passes, PassSeeds
from leyden.handlers.data.seeded_datasets import (
    CollateSeeded,
    CollateStream,
    Draw,
    SeededSamples,
    SeededStream,
    draws_nothing,
)
from leyden.handlers.parallel.dealing import DealtBatches, DealtSampler


class SeededData:
    """Seeds the loaders of an engine's data from its passes. The same loader keeps its copy, and so its workers."""

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self._count = 0
        self._copies: WeakKeyDictionary[DataLoader[Any], _SeededCopy] = WeakKeyDictionary()

    def add_to(self, engine: Engine[Any, Any], owner: object) -> None:
        """Adds this to the setup of the engine's data."""
        engine.data_setup.add(DataStage.BATCH, self._begin_count)
        engine.data_setup.add(DataStage.SEED, self._seed, owner=owner)

    def _begin_count(self, data: Any) -> Any:
        self._count = 0
        return data

    def _seed(self, data: Any) -> Any:
        number, self._count = self._count, self._count + 1
        if isinstance(data, DealtBatches) and not isinstance(data, Iterator):
            dealt = copy.copy(data)
            dealt.batches = self._seed_loader(data.batches, number)
            return dealt
        return self._seed_loader(data, number)

    def _seed_loader(self, data: Any, number: int) -> Any:
        if not isinstance(data, DataLoader) or isinstance(index_sampler(data), SeededSampler):
            return data
        made = self._copies.get(data)
        if made is None or made.number != number:
            made = self._copies[data] = _SeededCopy(data, self.passes, number)
        made.seeds.renew()
        return made.loader


class _SeededCopy:
    """A copy of a loader, with all its settings, that draws from the seeds of its passes."""

    def __init__(self, original: DataLoader[Any], passes: Passes, number: int) -> None:
        self.number = number
        self.loader = loader = fresh_copy(original)
        generator = torch.Generator()
        sampler, deal = _with_deal_of_its_own(index_sampler(original))
        self.seeds = seeds = PassSeeds(passes, number, generator, deal)
        loader.generator = generator  # from which torch draws the seeds of workers
        draws = self._seed_samples(loader)
        replace_part(loader, place_of_indices(original), SeededSampler(sampler, seeds, draws))

    def _seed_samples(self, loader: DataLoader[Any]) -> bool:
        """Exchanges dataset and collate function; True if the dataset wants the seed of the pass with each index."""
        dataset: Any = loader.dataset
        collate: Any = loader.collate_fn
        collates_by_itself = collate not in (default_collate, default_convert)
        if isinstance(dataset, IterDataPipe | MapDataPipe):
            return False  # torch tells those from other datasets, and seeds them from the loader's generator
        if isinstance(dataset, IterableDataset):
            # Workers that stay read from here which pass it is; the others have it from when they start.
            self.seeds.shared = torch.zeros((), dtype=torch.int64)
            if loader.persistent_workers:
                self.seeds.shared.share_memory_()
            stream = SeededStream(dataset, self.seeds.shared)
            replace_part(loader, "dataset", stream)
            if collates_by_itself:
                loader.collate_fn = CollateStream(collate, stream)
            return False
        if draws_nothing(dataset) and not collates_by_itself:
            return False
        replace_part(loader, "dataset", SeededSamples(dataset, hands_on_seed=collates_by_itself))
        if collates_by_itself:
            loader.collate_fn = CollateSeeded(collate)
        return True


class SeededSampler(SamplerLayer):
    """A sampler (of indices or of batches) whose order follows from the seed of the pass.

    `draws`: it yields the seed with each of them. Its other attributes are those of the sampler.
    """

    def __init__(self, sampler: Any, seeds: PassSeeds, draws: bool) -> None:
        self._original = sampler
        self._seeds = seeds
        self._draws = draws

    surrounds = True

    @property
    def inner(self) -> Any:
        return self._original

    def over(self, inner: Any) -> SeededSampler:
        return SeededSampler(inner, self._seeds, self._draws)

    def pass_state(self) -> dict[str, Any]:
        return self._seeds.state_dict()

    def load_pass_state(self, state: dict[str, Any]) -> None:
        self._seeds.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:
        return self._yield(self._seeds.begin())

    def _yield(self, seed: int) -> Iterator[Any]:
        own = own_generators(self._original)
        stream = Stream(seed, own)
        context: AbstractContextManager[None] = stream
        with stream:
            iterator = iter(self._original)
        while True:
            with context:
                index = next(iterator, END)
            if index is END:
                return
            self._seeds.note_draw()
            if not own and all(type(each) in (*DRAW_AT_ONCE, DealtSampler) for each in chain(self._original)):
                context = nullcontext()
            yield Draw(seed, index) if self._draws else index

    def __len__(self) -> int:
        return len(self._original)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_original":
            raise AttributeError(name)
        return getattr(self._original, name)


def fresh_copy(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy with all settings and the same parts, but with none of the passes that were begun."""
    fresh = copy.copy(loader)
    forget_pass(fresh)
    return fresh


def _with_deal_of_its_own(sampler: Any) -> tuple[Any, Any]:
    """The sampler with a deal that no other loader draws from, and that deal; (sampler, None) if it is not dealt."""
    if isinstance(sampler, DealtSampler):
        own = copy.copy(sampler)
        own.deal = copy.copy(sampler.deal)
        return own, own.deal
    if only_batches(sampler) and isinstance(sampler.sampler, DealtSampler):
        batches = copy.copy(sampler)
        batches.sampler, deal = _with_deal_of_its_own(sampler.sampler)
        return batches, deal
    return sampler, None
