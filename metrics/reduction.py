"""The states of many metrics over all ranks, with one collective for each reduction and dtype."""

from __future__ import annotations

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


@dataclass(slots=True)
class Item:
    """One state on its way through the reduction: `local` of this rank, `reduced` of all."""

    metric: Metric
    name: str
    declaration: Declaration
    local: torch.Tensor
    shapes: list[torch.Size] = field(default_factory=list)
    """Of all ranks, where they have to agree on them."""
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
    sizes = [item.shapes[rank].numel() for rank in range(dist.data_size()) for item in bucket]
    pieces = torch.split(flat, sizes)
    for position, item in enumerate(bucket):
        parts = [piece.view(shape) for piece, shape in zip(pieces[position :: len(bucket)], item.shapes, strict=True)]
        item.reduced = torch.cat(parts)


def _agree(items: list[Item], device: torch.device) -> None:
    """Tells all ranks the shapes of these items, and gives those of a rank without data the shape of the others."""
    if not items:
        return
    size, width = dist.data_size(), 1 + MOST_DIMENSIONS
    told = torch.zeros(size, len(items), width, dtype=torch.int64)
    for row, item in zip(told[dist.data_rank()], items, strict=True):
        shape = item.local.shape
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"a state has at most {MOST_DIMENSIONS} dimensions, but {_name(item)} has {len(shape)}")
        row[: 1 + len(shape)] = torch.tensor([len(shape), *shape])
    # A sum where each rank fills its own row: a gather in one collective.
    for position, rows in enumerate(dist.all_reduce(told.to(device), over="data").transpose(0, 1).tolist()):
        item = items[position]
        item.shapes = [torch.Size(dims[:count]) for count, *dims in rows]
        start = 1 if item.declaration.reduction == "cat" else 0
        full = [shape for shape in item.shapes if shape != UNKNOWN_SHAPE]
        if any(shape[start:] != full[0][start:] for shape in full):
            found = "; ".join(f"rank {rank}: {list(shape)}" for rank, shape in enumerate(item.shapes))
            raise ValueError(
                f"the state {_name(item)} has different shapes on the ranks, so it can't be reduced: {found}. "
                "All ranks need outputs of the same kind and number of classes"
            )
        if item.declaration.shaped_by_data and item.local.shape == UNKNOWN_SHAPE and full:
            item.local = moved(item.declaration.neutral(full[0]), device)


def _name(item: Item) -> str:
    return f"{type(item.metric).__name__}.{item.name}"
