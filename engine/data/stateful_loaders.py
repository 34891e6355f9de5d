"""Loaders with a state of their own (torchdata's StatefulDataLoader), which go on by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyden.engine.data.index_order import END


def finish(loader: Any, state: Any) -> None:
    """Goes with a stateful loader through what it does before a new pass: its first iterator is that of its state, be
    the pass over or cut short.
    """
    loader.state_dict()  # makes that iterator
    if isinstance(state, Mapping) and not state.get("_iterator_finished", True):
        iter(loader)
        return
    if begins_at_its_end(loader._iterator):
        loader.load_state_dict(state)
        loader.state_dict()


def begins_at_its_end(iterator: Any) -> bool:
    """True if the dataset of a pass that has given its last sample is at the beginning of the next; others still have a
    pass with nothing in it to be gone through, which is done here, since the loader does not ask them any more.
    """
    fetcher: Any = getattr(iterator, "_dataset_fetcher", None)
    stream = getattr(fetcher, "dataset_iter", None)
    return stream is not None and fetcher.ended and next(stream, END) is not END
