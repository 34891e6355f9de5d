"""Where a pass over a loader begins in the order of its indices: past those that were drawn before, which are drawn
again but not loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from leyden.distributed.compat import begun_pass, end_workers, iterates_itself, replace_part, take_indices_from
from leyden.engine.data.draw_record import DrawRecord
from leyden.engine.data.loader_parts import (
    SamplerLayer,
    index_sampler,
    only_batches,
    own_generators,
    place_of_indices,
)
from leyden.engine.data.part_states import parts, set_states
from leyden.engine.randomness.host import Aside, Stream, set_host_state

END = object()


class Drawn(Iterator[Any]):
    """The indices of an iterator past the first `skip`; a record, if there is one, is told of each draw."""

    def __init__(self, indices: Iterator[Any], skip: int = 0, record: DrawRecord | None = None) -> None:
        self._indices = indices
        self._skip = skip
        self._record = record
        self._ahead: list[Any] = []

    def skip(self) -> None:
        """Draws what is to be skipped now."""
        while self._skip > 0:
            self._skip -= 1
            self._draw()

    def draw_ahead(self) -> None:
        """Draws the first index now, for when it is asked for."""
        self.skip()
        self._ahead.append(self._draw())

    def __next__(self) -> Any:
        if self._skip:
            self.skip()
        index = self._ahead.pop() if self._ahead else self._draw()
        if index is END:
            raise StopIteration
        return index

    def _draw(self) -> Any:
        record = self._record
        if record is not None and record.repeats:  # what was read ahead is drawn again when its turn comes
            with Aside():
                record.before_draw()
                return next(self._indices, END)
        if record is not None:
            record.before_draw()
        return next(self._indices, END)


class _Gate(Sampler[Any]):
    """Takes the place of a loader's index sampler while the loader begins a pass."""

    def __init__(self, sampler: Any, begin: Callable[[], Iterator[Any]]) -> None:
        self._sampler = sampler
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self._begin()

    def __len__(self) -> int:
        return len(self._sampler)


def begin_loader(loader: DataLoader[Any], begin: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """A pass over the loader with the indices that `begin` gives, asked for as often as the loader begins its sampler
    (twice, where it starts workers).
    """
    place, own = place_of_indices(loader), index_sampler(loader)
    gate = _Gate(own, begin)
    kept = begun_pass(loader)  # of workers that stay; it has the sampler from its first pass
    replace_part(loader, place, gate)
    if kept is not None:
        take_indices_from(kept, gate)
    try:
        iterator: Iterator[Any] = DataLoader.__iter__(loader) if iterates_itself(loader) else iter(loader)
    finally:
        replace_part(loader, place, own)
        if kept is not None:
            take_indices_from(kept, own)
    take_indices_from(iterator, own)
    return iterator


def start_workers(loader: DataLoader[Any]) -> None:
    """Starts workers that stay, where the run that is gone on with had started them in an earlier pass; nothing is
    drawn.
    """
    if not loader.persistent_workers or begun_pass(loader) is not None:
        return
    own = [] if loader.generator is None else [loader.generator]
    states = [generator.get_state() for generator in own]
    with Aside():
        begin_loader(loader, lambda: iter(()))
    for generator, state in zip(own, states, strict=True):
        generator.set_state(state)


def start_anew(loader: DataLoader[Any]) -> None:
    """Ends workers that stay, where those of the run that is gone on with were started by this very pass: it begins
    with the draw of their seed then.
    """
    if loader.persistent_workers:
        end_workers(loader)


def keeps_workers(data: Any) -> bool:
    """True for a loader whose workers were started by an earlier pass, and serve the next."""
    return isinstance(data, DataLoader) and data.persistent_workers and begun_pass(data) is not None


class Remaining(Sampler[Any]):
    """What is left of a sampler's order after its first `taken` items.

    began: what a pass began from, by which the same order is drawn again, whatever surrounds it now.
    """

    def __init__(
        self, sampler: Any, taken: int, began: Mapping[str, Any], loader: DataLoader[Any], *, batched: bool
    ) -> None:
        self.sampler = sampler
        self._taken = taken
        self._began = began
        self._generator = loader.generator
        # Named now: while the loader begins a pass, this stands in the place of its sampler.
        self._parts = list(parts(loader))
        self._batched = batched

    def __iter__(self) -> Iterator[Any]:
        began = self._began
        if began.get("surrounded"):
            return self._skip(iter(self.sampler), None)
        if began.get("seed") is not None:
            stream = Stream(began["seed"], own_generators(self.sampler))
        else:
            stream = Stream(began["host"])
        with stream:
            items = self._skip(self._begin(), DrawRecord(began["draws"]) if began.get("draws") else None)
        return _within(stream, items)

    def _begin(self) -> Iterator[Any]:
        began = self._began
        if began.get("seed") is not None:
            return iter(self.sampler)
        # The draws of a DataLoader when it begins a pass, in their order.
        set_states(self._parts, began["parts"])
        iterator: Iterator[Any] | None = None if self._batched else iter(self.sampler)
        if not began.get("warm"):  # workers that stay have their seed
            torch.empty((), dtype=torch.int64).random_(generator=self._generator)
            if "first" in began and not began.get("workers"):
                set_host_state(began["first"])
        if iterator is None or began.get("workers"):
            iterator = iter(self.sampler)
        return iterator

    def _skip(self, indices: Iterator[Any], record: DrawRecord | None) -> Iterator[Any]:
        return Drawn(indices, self._taken, record)

    def __len__(self) -> int:
        return max(0, len(self.sampler) - self._taken)


def _within(context: Stream, indices: Iterator[Any]) -> Iterator[Any]:
    while True:
        with context:
            index = next(indices, END)
        if index is END:
            return
        yield index


def rest_of_order(loader: DataLoader[Any], taken: int, began: Mapping[str, Any]) -> Any:
    """The loader's index sampler over what is left of a pass's order after `taken` items of it, all ranks together."""
    return _over(index_sampler(loader), taken, began, loader, batched=False)


def _over(sampler: Any, taken: int, began: Mapping[str, Any], loader: DataLoader[Any], *, batched: bool) -> Any:
    if isinstance(sampler, SamplerLayer):
        return sampler.over(_over(sampler.inner, taken, began, loader, batched=batched))
    if not batched and only_batches(sampler):
        return type(sampler)(
            _over(sampler.sampler, taken, began, loader, batched=True), sampler.batch_size, sampler.drop_last
        )
    if type(sampler) is DistributedSampler:
        return _Redistributed(sampler, taken)
    return Remaining(sampler, taken, began, loader, batched=batched)


class _Redistributed(Sampler[Any]):
    """What a DistributedSampler gives its rank of what is left of its order."""

    def __init__(self, sampler: DistributedSampler[Any], taken: int) -> None:
        self._sampler = sampler
        whole = copy.copy(sampler)
        whole.num_replicas, whole.rank = 1, 0
        whole.num_samples = whole.total_size = len(sampler.dataset)  # type: ignore[arg-type]
        self._whole = whole
        left = max(0, whole.total_size - taken)
        ranks = sampler.num_replicas
        self._taken = taken
        self._count = left // ranks if sampler.drop_last else -(-left // ranks)

    def __iter__(self) -> Iterator[Any]:
        whole = list(self._whole)
        left = whole[self._taken :]
        wanted = self._count * self._sampler.num_replicas
        left += whole[: max(0, wanted - len(left))]
        return iter(left[:wanted][self._sampler.rank :: self._sampler.num_replicas])

    def __len__(self) -> int:
        return self._count
