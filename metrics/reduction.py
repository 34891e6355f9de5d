"""The states of many metrics over all ranks, in at most four collectives, however many metrics there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from leyden import distributed as dist
from leyden.metrics.agreed_shapes import Shapes
from leyden.metrics.packing import Packed, unpacked
from leyden.metrics.state_items import Item
from leyden.metrics.states import StateValue

if TYPE_CHECKING:
    from leyden.metrics.base import Metric


def reduced_states(metrics: Sequence[Metric], *, together: bool = True) -> list[dict[str, StateValue]]:
    """The states of each metric over all ranks that see different data; those of the metrics stay as they are. Every
    rank calls this, unless `together` is False: then what this rank has and carries is reduced.

    What is compared (shapes that the data alone know, sizes of what is gathered, greatest and least values) takes one
    collective; sums of whole numbers, of floats, and what is gathered take one each, where there are any. A rank that
    saw no data takes part with its defaults.

    Raises ValueError, on every rank, if a state has different shapes on different ranks.
    """
    items = [item for metric in metrics for item in Item.all_of(metric)]
    if together and dist.data_size() > 1:
        _reduce(items)
    else:
        for item in items:
            item.finish_alone()
    states: dict[int, dict[str, StateValue]] = defaultdict(dict)
    for item in items:
        states[id(item.metric)][item.name] = item.state()
    return [states[id(metric)] for metric in metrics]


def _reduce(items: list[Item]) -> None:
    """In an order that is the same on all ranks."""
    gathered = _by_destination(item for item in items if not item.declaration.arithmetic)
    packed = {to: Packed.of([item.gathered() for item in each], to.device) for to, each in gathered.items()}
    extremes = [item for item in items if item.declaration.reduction in ("max", "min")]
    sizes = _compare(items, extremes, list(packed.values()))
    _add([item for item in items if item.declaration.reduction in ("sum", "mean")])
    _extremes([item for item in extremes if not item.done])
    for (to, each), lengths in zip(gathered.items(), sizes, strict=True):
        _gather(each, packed[to], lengths, on_rank_zero=to.rank_zero)


class _Destination(NamedTuple):
    """Where gathered states go: to which device, of rank 0 alone or of all."""

    device: torch.device
    rank_zero: bool


def _by_destination(items: Iterable[Item]) -> dict[_Destination, list[Item]]:
    found: dict[_Destination, list[Item]] = defaultdict(list)
    for item in items:
        found[_Destination(item.home, item.metric.on_rank_zero)].append(item)
    return found


def _compare(items: list[Item], extremes: list[Item], packed: list[Packed]) -> list[list[list[int]]]:
    """Sees that all ranks have these items in one shape, and finishes the extremes whose shape was as declared on all.
    Gives, of each that is packed, the sizes on all ranks: of the header and of the whole.
    """
    shapes = Shapes([item for item in items if item.declaration.shaped_by_data])
    foreseen = [item for item in extremes if item.foreseen is not None]
    if not shapes.items and not foreseen and not packed:
        return []
    sizes = torch.zeros(len(packed), dist.data_size(), 2, dtype=torch.int64)
    for mine, each in zip(sizes, packed, strict=True):
        mine[dist.data_rank()] = torch.tensor([each.header, len(each.content)])
    numbers = [shapes.numbers().reshape(-1), sizes.reshape(-1)]
    host = sum(map(len, numbers))
    sent = torch.cat([torch.cat(numbers).to(dist.device()), *(item.in_order(item.foreseen) for item in foreseen)])
    known = dist.all_reduce(sent, "max", over="data")
    on_host = known[:host].cpu()
    shapes.settle(on_host[: len(numbers[0])])
    for item, piece in zip(
        foreseen, known[host:].split([item.declaration.default.numel() for item in foreseen]), strict=True
    ):
        if not shapes.surprised(item):
            item.finish_order(piece, item.declaration.default.shape)
    return on_host[len(numbers[0]) :].view_as(sizes).tolist()


def _add(items: list[Item]) -> None:
    """Sums: those of whole numbers exactly, all others in the widest floats."""
    summands = [(item, tensor) for item in items for tensor in item.summands()]
    for whole in (True, False):
        bucket = [(item, tensor) for item, tensor in summands if tensor.is_floating_point() is not whole]
        if bucket:
            flat = dist.all_reduce(torch.cat([tensor.reshape(-1) for _, tensor in bucket]), "sum", over="data")
            for (item, tensor), piece in zip(bucket, flat.split([tensor.numel() for _, tensor in bucket]), strict=True):
                item.take_sum(piece.view(tensor.shape))
    for item in items:
        item.finish_sum()


def _extremes(items: list[Item]) -> None:
    """Those whose shape the data alone knew."""
    if items:
        pieces = [item.in_order(item.local) for item in items]
        flat = dist.all_reduce(torch.cat(pieces), "max", over="data")
        for item, piece in zip(items, flat.split([len(each) for each in pieces]), strict=True):
            item.finish_order(piece, item.local.shape)


def _gather(items: list[Item], packed: Packed, sizes: list[list[int]], *, on_rank_zero: bool) -> None:
    lengths = [whole for _, whole in sizes]
    flat: torch.Tensor | None
    if on_rank_zero:
        flat = dist.gather(packed.content, lengths=lengths, over="data")
    else:
        flat = dist.all_gather(packed.content, lengths=lengths, over="data")
    if flat is None:  # another rank has it
        for item in items:
            item.finish_gathered([])
        return
    contents = flat.split(lengths)
    headers = torch.cat([each[:header] for each, (header, _) in zip(contents, sizes, strict=True)]).cpu()
    of_ranks: list[list[list[Any]]] = [
        unpacked(content, header)
        for content, header in zip(contents, headers.split([header for header, _ in sizes]), strict=True)
    ]
    for position, item in enumerate(items):
        item.finish_gathered([entries[position] for entries in of_ranks])
