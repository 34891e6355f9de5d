"""The states of many metrics over all ranks, with one collective for each reduction and dtype."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from leyden import distributed as dist
from leyden.metrics.states import UNKNOWN_SHAPE, Declaration, StateValue, as_tensor, moved

if TYPE_CHECKING:
    from leyden.metrics.base import Metric

MOST_DIMENSIONS = 8
_UNKNOWN = -(2**62)


@dataclass(slots=True)
class Item:
    """One state on its way through the reduction: `local` of this rank, `reduced` of all."""

    metric: Metric
    name: str
    declaration: Declaration
    local: torch.Tensor
    lengths: list[int] = field(default_factory=list)
    """How many rows each rank has, where they are joined."""
    row: tuple[int, ...] | None = None
    """The shape of a row then; of another, of the whole. None where no rank has data."""
    reduced: torch.Tensor = field(init=False)

    def state(self) -> StateValue:
        """The reduced value in the form that the metric knows."""
        if self.declaration.counter:
            return int(self.reduced)
        return [self.reduced] if self.declaration.reduction == "cat" else self.reduced


def reduced_states(metrics: Sequence[Metric]) -> list[dict[str, StateValue]]:
    """The states of each metric over all ranks that see different data; those of the metrics stay as they are. Every
    rank calls this.

    A rank that saw no data takes part with its defaults. Where shapes or lengths are known to the data alone, one small
    collective more tells them to all.

    Raises ValueError, on every rank, if a state has different shapes on different ranks.
    """
    device = dist.device()
    items = [
        Item(metric, name, declaration, moved(as_tensor(getattr(metric, name)), device, declaration.default.dtype))
        for metric in metrics
        for name, declaration in metric.declarations.items()
    ]
    _agree([item for item in items if item.declaration.shaped_by_data or item.declaration.reduction == "cat"], device)
    for reduction, bucket in _buckets(items):
        if reduction == "cat":
            _gather(bucket)
        else:
            _reduce(bucket, reduction)
    states: dict[int, dict[str, StateValue]] = defaultdict(dict)
    for item in items:
        states[id(item.metric)][item.name] = item.state()
    return [states[id(metric)] for metric in metrics]


def _buckets(items: Iterable[Item]) -> list[tuple[str, list[Item]]]:
    """The items of each reduction and dtype, in an order that is the same on all ranks."""
    buckets: dict[tuple[str, torch.dtype], list[Item]] = defaultdict(list)
    for item in items:
        buckets[item.declaration.reduction, item.local.dtype].append(item)
    return [(reduction, bucket) for (reduction, _), bucket in buckets.items()]


def _reduce(bucket: list[Item], reduction: str) -> None:
    flat = dist.all_reduce(torch.cat([item.local.reshape(-1) for item in bucket]), reduction, over="data")
    for item, piece in zip(bucket, torch.split(flat, [item.local.numel() for item in bucket]), strict=True):
        item.reduced = piece.view(item.local.shape)


def _gather(bucket: list[Item]) -> None:
    flat = dist.all_gather(torch.cat([item.local.reshape(-1) for item in bucket]), over="data")
    sizes = [item.lengths[rank] * math.prod(item.row or ()) for rank in range(dist.data_size()) for item in bucket]
    pieces = torch.split(flat, sizes)
    for position, item in enumerate(bucket):
        parts = [
            piece.view(length, *(item.row or ()))
            for piece, length in zip(pieces[position :: len(bucket)], item.lengths, strict=True)
        ]
        item.reduced = torch.cat(parts)


def _agree(items: list[Item], device: torch.device) -> None:
    """Sees that all ranks have these items in one shape, and gives those of a rank without data the shape of others.

    The greatest of each size and of its negative tell, in one collective that is as large for many ranks as for few; of
    states that are joined each rank says besides how many rows it has.
    """
    if not items:
        return
    rows = torch.tensor([_row(item) for item in items])
    joined = [item for item in items if item.declaration.reduction == "cat"]
    lengths = torch.zeros(dist.data_size(), len(joined), dtype=torch.int64)
    lengths[dist.data_rank()] = torch.tensor([len(item.local) for item in joined])
    known = dist.all_reduce(torch.cat([rows.reshape(-1), lengths.reshape(-1)]).to(device), "max", over="data").cpu()
    differing = False
    for item, (dims, *sizes) in zip(items, known[: rows.numel()].view_as(rows).tolist(), strict=True):
        if dims == _UNKNOWN:  # no rank has data
            continue
        greatest, negated, fewest = sizes[:MOST_DIMENSIONS], sizes[MOST_DIMENSIONS:-1], -sizes[-1]
        first = 1 if item.declaration.reduction == "cat" else 0
        item.row = tuple(greatest[first:dims])
        differing |= dims != fewest or item.row != tuple(-size for size in negated[first:dims])
    if differing:
        _tell_differing(items)
    for item in items:
        if item.declaration.shaped_by_data and item.local.shape == UNKNOWN_SHAPE and item.row is not None:
            item.local = moved(item.declaration.neutral(torch.Size(item.row)), device)
    for item, of_ranks in zip(joined, known[rows.numel() :].view_as(lengths).t().tolist(), strict=True):
        item.lengths = of_ranks


def _row(item: Item) -> list[int]:
    """Dimensions, sizes, and the same negated; of a rank without data what no greatest is made of."""
    shape = item.local.shape
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"a state has at most {MOST_DIMENSIONS} dimensions, but {_name(item)} has {len(shape)}")
    if shape == UNKNOWN_SHAPE:
        return [_UNKNOWN] * (2 + 2 * MOST_DIMENSIONS)
    sizes = [*shape, *[0] * (MOST_DIMENSIONS - len(shape))]
    return [len(shape), *sizes, *(-size for size in sizes), -len(shape)]


def _tell_differing(items: list[Item]) -> None:
    """Raises ValueError for the first item that has different shapes on the ranks, and shows these."""
    of_ranks = dist.all_gather_object([tuple(item.local.shape) for item in items], over="data")
    for item, shapes in zip(items, zip(*of_ranks, strict=True), strict=True):
        start = 1 if item.declaration.reduction == "cat" else 0
        full = [shape for shape in shapes if shape != UNKNOWN_SHAPE]
        if any(len(shape) != len(full[0]) or shape[start:] != full[0][start:] for shape in full):
            found = "; ".join(f"rank {rank}: {list(shape)}" for rank, shape in enumerate(shapes))
            raise ValueError(
                f"the state {_name(item)} has different shapes on the ranks, so it can't be reduced: {found}. "
                "All ranks need outputs of the same kind and number of classes"
            )


def _name(item: Item) -> str:
    return f"{type(item.metric).__name__}.{item.name}"
