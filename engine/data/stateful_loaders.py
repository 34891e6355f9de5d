"""Loaders that save and load their own state (torchdata's StatefulDataLoader)."""

from __future__ import annotations

from typing import Any

from leyden.distributed.compat import begun_pass, is_within_a_pass, stream_at_its_end
from leyden.engine.data.index_order import END


def finish(loader: Any, state: Any) -> None:
    """Brings a stateful loader to the beginning of a new pass: its first iterator continues from its state, whether
    that pass was over or cut short.
    """
    loader.state_dict()  # makes that iterator
    if is_within_a_pass(state):
        iter(loader)
        return
    if begins_at_its_end(begun_pass(loader)):
        loader.load_state_dict(state)
        loader.state_dict()


def begins_at_its_end(iterator: Any) -> bool:
    """True if the dataset of a pass that has given its last sample is at the beginning of the next; others still have a
    pass with nothing in it to be gone through, which is done here, since the loader does not ask them any more.
    """
    stream = stream_at_its_end(iterator)
    return stream is not None and next(stream, END) is not END
