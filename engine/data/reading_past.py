"""Skips batches that were used before, in data that must be read past them or is asked by index."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


def by_index(data: Any, first: int) -> Iterator[Any]:
    """The old protocol of iteration, which asks for one index after the other."""
    for index in itertools.count(first):
        try:
            item = data[index]
        except IndexError:
            return
        yield item


def tell_of_reading(data: Any, number: int) -> None:
    """Warns of the cost of reading the first `number` batches of the data again."""
    warnings.warn(
        f"to go on where the run was, the first {number} batches of {_name(data)} are read again and thrown away, "
        "which takes as long as reading them took. What that draws from python's, numpy's or torch's global generators "
        "leaves no trace, but an order that hangs on what the steps drew in between can't be found again: draw it from "
        "a generator of its own. Data with state_dict() and load_state_dict() (torchdata's StatefulDataLoader, over a "
        "dataset that has them) or with random access goes on at once",
        stacklevel=2,
    )


def _name(data: Any) -> str:
    kind = type(data).__name__
    return f"a {kind} over {type(data.dataset).__name__}" if isinstance(data, DataLoader) else f"the {kind}"


def comes_out_of_order(data: Any) -> bool:
    """True for a loader whose batches come in the order in which its workers finish, so that it is unknown which were
    used.
    """
    return isinstance(data, DataLoader) and data.num_workers > 0 and not data.in_order


def refuse_out_of_order(data: Any, *, came_so: bool) -> None:
    """Raises ValueError where some batches would come twice and others never: for a loader that gives them out of
    order, and for a pass of which the first ones came so (`came_so`), whatever gives the rest.
    """
    if came_so or comes_out_of_order(data):
        raise ValueError(
            f"a run can't go on in the midst of a pass over {_name(data)} with in_order=False: its batches "
            f"{'came' if came_so else 'come'} in the order in which its workers are done, so it is not known which "
            "were used. Go on from a checkpoint of an epoch's end; with in_order=True the next run can go on anywhere"
        )
