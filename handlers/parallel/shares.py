"""Each rank's share of a run's data: dealt to it, or its own from the start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal, cast, get_args

from torch.utils.data import DataLoader

from leyden import distributed as dist
from leyden.engine.data import SEQUENCE_TYPES, has_random_access, index_sampler
from leyden.handlers.parallel.common_end import CommonEnd, CommonEndOfIterator, Roll, SizedCommonEnd
from leyden.handlers.parallel.dealing import Deal, DealtBatches, deal_data, has_length, own_place
from leyden.handlers.parallel.same_batches import SameBatches
from leyden.handlers.parallel.split_datasets import Shard, hold_other_samples, least_and_greatest, shard_of_stream

Choice = Literal["samples", "batches", "nothing"]

_UNKNOWN = -1


def checked_choice(choice: Any, who: str) -> Choice | None:
    """The choice that an argument `deal=` of `who` means. Raises ValueError if it is neither None, False nor a
    `Choice`.
    """
    if choice is False:
        return "nothing"
    if choice is not None and choice not in get_args(Choice):
        raise ValueError(
            f"{who}(deal=...) is one of {', '.join(map(repr, get_args(Choice)))}, or False, or None, but got {choice!r}"
        )
    return cast(Choice | None, choice)


class Shares:
    """The change of a run's data by which each rank gets its share.

    Loaders with random access are dealt, unless a sampler of theirs has a rank. Whether other data is the same on all
    ranks can't be seen, unless it tells: it is dealt by whole batches if `choice` says so, else each rank keeps what it
    has. `who`: the handler that messages name.
    """

    def __init__(self, choice: Choice | None, deal: Deal, who: str) -> None:
        self._choice = choice
        self._deal = deal
        self._who = who
        self._roll: Roll | None = None
        self._same: SameBatches | None = None
        self._told: set[str] = set()

    def __call__(self, data: Any) -> Any:
        if data is None or isinstance(data, DealtBatches):
            return data
        if self._choice == "nothing":
            return self._own(data)
        if has_random_access(data):
            found = own_place(data)
            if found is None:
                self._check_alike(data)
                return deal_data(data, self._deal)
            sampler, place = found
            if place is not None:
                dist.check_place(sampler, place, (self._deal.rank, self._deal.world_size))
            return self._own(data)
        shard = shard_of_stream(data)
        if shard is not None:
            self._check_shard(data, shard)
            return self._own(data)
        if self._choice == "batches":
            dealt = deal_data(data, self._deal)
            self._same = self._same or SameBatches(self._who, type(getattr(data, "dataset", data)).__name__)
            dealt.compare = self._same.compare
            return dealt
        self._tell(data)
        return self._own(data)

    def _check_shard(self, data: Any, shard: Shard) -> None:
        name = type(getattr(data, "dataset", data)).__name__
        rank, ranks = self._deal.rank, self._deal.world_size
        if shard.rank is not None and shard != (rank, ranks):
            raise ValueError(
                f"the {name} is split by node for rank {shard.rank} of {shard.ranks}, but this is rank {rank} of "
                f"{ranks} among those that see different data: split it by dist.data_rank() and dist.data_size()"
            )
        if shard.rank is None and ranks < dist.world_size():
            raise ValueError(
                f"the {name} is split by node among all {dist.world_size()} ranks, of which {ranks} are to see "
                "different data: give it a nodesplitter that goes by dist.data_rank() and dist.data_size()"
            )
        if self._choice == "batches":
            raise ValueError(
                f"{self._who}(deal='batches') lets each rank read all of the data and keep its share, but the {name} "
                f"is split by node already, so most of it would be lost: say {self._who}(), or leave the data unsplit"
            )

    def _own(self, data: Any) -> Any:
        """What the rank has for itself; in training a pass ends on all ranks together."""
        if not self._deal.even:
            return data
        length = len(data) if has_length(data) else _UNKNOWN
        reliable = isinstance(data, SEQUENCE_TYPES) or has_random_access(data)
        lowest, highest = least_and_greatest(length if reliable else _UNKNOWN)
        if lowest == highest != _UNKNOWN:
            return data
        self._roll = self._roll or Roll()
        if isinstance(data, Iterator):
            return CommonEndOfIterator(data, self._roll)
        lowest, _ = least_and_greatest(length)
        return CommonEnd(data, self._roll) if lowest == _UNKNOWN else SizedCommonEnd(data, self._roll, lowest)

    def _check_alike(self, loader: DataLoader[Any]) -> None:
        order = index_sampler(loader)
        lowest, highest = least_and_greatest(len(order) if has_length(order) else _UNKNOWN)
        if lowest != highest:
            raise ValueError(
                f"{self._who} deals the same data to all ranks, but the ranks have loaders of {lowest} to {highest} "
                f"batches: give all the same data, or, if each rank has its own share, say {self._who}(deal='nothing')"
            )
        if self._choice is None and hold_other_samples(loader.dataset):
            raise ValueError(
                f"{self._who} deals the same data to all ranks, but their data sets "
                f"({type(loader.dataset).__name__}) hold other samples, as many on each: if each rank has its own "
                f"share (split_dataset_by_node, a Subset), say {self._who}(deal='nothing'), else samples would be "
                f"lost; if they are the same after all, {self._who}(deal='samples')"
            )

    def _tell(self, data: Any) -> None:
        name = (
            f"a {type(data).__name__} over {type(data.dataset).__name__}"
            if isinstance(data, DataLoader)
            else (f"a {type(data).__name__}")
        )
        if self._choice is not None or name in self._told or dist.rank() != 0:
            return
        self._told.add(name)
        what = "trains on" if self._deal.even else "evaluates"
        alike = dist.world_size() // self._deal.world_size
        in_mesh = (
            f". Of this mesh {alike} ranks each have to read the same: a share of its own goes by dist.data_rank() and "
            "dist.data_size()"
            if alike > 1
            else ""
        )
        warnings.warn(
            f"{self._who} does not deal {name}: without random access nobody can see whether it is dealt already, so "
            f"each rank {what} all that its own gives. If the ranks read the same, say {self._who}(deal='batches'), "
            "and each keeps its share; if each reads its own, deal='samples' says so" + in_mesh,
            stacklevel=2,
        )
