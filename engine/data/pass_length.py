"""How many batches a pass over data has: what its len() says, and whether that can be relied on."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from torch.utils.data import DataLoader

from leyden.engine.data.draw_record import is_of_torch
from leyden.engine.data.layers import DataLayer, KnowsItsPass
from leyden.engine.data.loader_parts import SamplerLayer, chain, has_random_access, index_sampler

SEQUENCE_TYPES = (list, tuple, str, range, torch.Tensor)
"""Data that is the same in each pass, and of which nothing needs to be read to skip it."""


def known_length(data: Any) -> int | None:
    """Batches in one pass, or None where the data does not say."""
    if not isinstance(data, Sized):
        return None
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # a DataLoader over an IterableDataset has __len__, and raises
        return None


def keeps_its_length(data: Any) -> bool:
    """True if each pass has as many batches as len() says. An IterableDataset may divide its samples unevenly among
    workers or count samples that it then leaves out, and a custom sampler's __len__ is written by hand: there only the
    pass itself tells.
    """
    while isinstance(data, DataLayer):
        data = data.inner_data()
    if isinstance(data, KnowsItsPass):
        return data.keeps_its_length
    if isinstance(data, DataLoader):
        return (
            has_random_access(data)
            and type(data).__len__ is DataLoader.__len__
            and all(isinstance(link, SamplerLayer) or is_of_torch(link) for link in chain(index_sampler(data)))
        )
    return isinstance(data, SEQUENCE_TYPES)
