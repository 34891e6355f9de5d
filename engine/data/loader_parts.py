"""What a loader is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler

from leyden.distributed.compat import iterates_itself


class SamplerLayer(Sampler[Any]):
    """A sampler of leyden's own between a loader and the sampler of a user, whose items it gives in another way."""

    ranks = 1
    """Among how many ranks it deals the items."""
    surrounds = False
    """True if the samplers below draw from a seed that this layer knows."""

    @property
    def inner(self) -> Any:
        """The sampler below."""
        raise NotImplementedError

    def over(self, inner: Any) -> SamplerLayer:
        """The same over another sampler."""
        raise NotImplementedError

    def order_seed(self) -> int | None:
        """What the order of the next pass is drawn from, if it is a seed that this layer gives."""
        return None

    def pass_state(self) -> Any:
        """What determines the next pass, as plain data."""
        raise NotImplementedError

    def load_pass_state(self, state: Any) -> None:
        raise NotImplementedError


def has_random_access(data: Any) -> bool:
    """True for a loader that asks a sampler for indices, a batch for each of them (or each batch of them)."""
    return has_indices(data) and not iterates_itself(data)


def has_indices(data: Any) -> bool:
    """True for a loader over samples that have indices."""
    return isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset)


def place_of_indices(loader: DataLoader[Any]) -> str:
    """The attribute that holds the sampler from which the loader takes its indices, or batches of them."""
    return "sampler" if loader.batch_sampler is None else "batch_sampler"


def index_sampler(loader: DataLoader[Any]) -> Any:
    """The sampler at that place."""
    return getattr(loader, place_of_indices(loader))


def only_batches(sampler: Any) -> bool:
    """True for a sampler that makes batches of another's indices, in their order, and does nothing else."""
    # torchdata's StatefulDataLoader makes batches by a class of its own, which knows where it stands.
    return type(sampler) is BatchSampler or (
        isinstance(sampler, BatchSampler) and type(sampler).__module__.startswith("torchdata.")
    )


def chain(sampler: Any) -> list[Any]:
    """The sampler and those it draws from, one below the other."""
    links: list[Any] = []
    while sampler is not None and not any(sampler is link for link in links):
        links.append(sampler)
        sampler = sampler.inner if isinstance(sampler, SamplerLayer) else getattr(sampler, "sampler", None)
    return links


def layers(loader: DataLoader[Any]) -> list[SamplerLayer]:
    """leyden's own samplers in the loader, the outermost first."""
    return [link for link in chain(index_sampler(loader)) if isinstance(link, SamplerLayer)]


def batch_unit(data: Any) -> int:
    """Items of the order that a batch takes: samples, or 1 where the order is one of batches."""
    if has_random_access(data):
        for link in chain(index_sampler(data)):
            if only_batches(link):
                return int(link.batch_size)
            if not isinstance(link, SamplerLayer):
                break
    return 1


def ranks_of(data: Any) -> int:
    """Among how many ranks the loader's samplers deal its order."""
    if not has_indices(data):
        return 1
    ranks = 1
    for link in chain(index_sampler(data)):
        if isinstance(link, SamplerLayer):
            ranks *= link.ranks
        elif isinstance(link, DistributedSampler):
            ranks *= link.num_replicas
    return ranks


def own_generators(sampler: Any) -> list[torch.Generator]:
    """torch's generators that the samplers of a chain draw from, other than the global one."""
    found = (getattr(link, "generator", None) for link in chain(sampler))
    return [each for each in found if isinstance(each, torch.Generator)]


def knows_its_place(data: Any) -> bool:
    """True for a loader that goes on from its own state. Where leyden deals or seeds its order, that is drawn again."""
    has_state = hasattr(data, "state_dict") and hasattr(data, "load_state_dict")
    return has_state and not (has_random_access(data) and layers(data))
