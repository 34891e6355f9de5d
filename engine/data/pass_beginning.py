"""What determines a pass over data when it begins, so that it can be drawn again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader

from leyden.engine.data.index_order import keeps_workers
from leyden.engine.data.loader_parts import layers
from leyden.engine.data.part_states import parts_state
from leyden.engine.data.pass_length import SEQUENCE_TYPES
from leyden.engine.randomness.host import host_state, is_same_state

DRAW_NOTHING: tuple[type, ...] = (
    itertools.count, itertools.repeat, type(iter([])), type(iter(())), type(iter("")), type(iter(range(0)))
)  # fmt: skip
"""Iterators that use no random numbers."""


def beginning_of(leaf: Any) -> dict[str, Any] | None:
    """What will determine the pass that is about to begin; None if it is always the same."""
    if isinstance(leaf, (*SEQUENCE_TYPES, *DRAW_NOTHING)):
        return None
    if isinstance(leaf, Iterator):
        return {"host": host_state(), "parts": {}}
    began: dict[str, Any] = {"host": host_state(), "parts": parts_state(leaf)}
    if not isinstance(leaf, DataLoader):
        return began
    if keeps_workers(leaf):
        began["warm"] = True
    elif leaf.num_workers > 0:
        began["workers"] = True
    for layer in layers(leaf):
        if layer.surrounds:
            began["surrounded"] = True
        elif (seed := layer.order_seed()) is not None:
            began["seed"] = seed
    return began


def noting_first(batches: Iterator[Any], began: dict[str, Any], then: Mapping[str, Any] | None) -> Iterator[Any]:
    """The same batches. Before the first is asked for, `began` is told where the generators are, if they are not where
    they were `then`: a sampler or a stream draws its order only now, and a handler may have drawn.
    """

    def note() -> Iterator[Any]:
        now = host_state()
        if then is None or not is_same_state(now, then):
            began["first"] = now
        yield from ()

    return itertools.chain(note(), batches)
