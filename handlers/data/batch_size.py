"""A DataLoader with another batch size."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch.utils.data import BatchSampler, DataLoader

from leyden.distributed.compat import forget_pass, replace_part
from leyden.engine.values import as_whole

Loader = TypeVar("Loader", bound=DataLoader[Any])


def with_batch_size(data: Loader, size: int) -> Loader:
    """A copy of the loader that makes batches of `size` samples; the loader itself stays as it is.

    Everything else is kept: dataset, sampler and its generator, collate_fn, drop_last, workers, the class. The sampler
    is the same object, so loader and copy draw from the same random numbers. Samples of an IterableDataset are batched
    anew as well.

    Raises TypeError for anything but a DataLoader and for a size that is not a whole number; ValueError for a size
    below 1, for a loader whose batch sampler is the user's own, and for one that does not batch (batch_size=None).
    """
    check_batch_size(size)
    size = int(size)
    if not isinstance(data, DataLoader):
        raise TypeError(
            f"only a torch DataLoader's batch size can be changed, but the data is a {type(data).__name__}; "
            "give a DataLoader over single samples"
        )
    batches = data.batch_sampler
    if batches is None:
        raise ValueError(
            f"this {type(data).__name__} does not batch (batch_size=None), so its batch size can't be changed; "
            "give it a batch_size and a dataset of single samples"
        )
    if data.batch_size is None or not isinstance(batches, BatchSampler):
        raise ValueError(
            f"this {type(data).__name__} has a batch sampler of its own ({type(batches).__name__}), which alone says "
            "how large a batch is; give the loader a sampler and a batch_size instead"
        )
    changed = copy.copy(data)
    # torchdata's StatefulDataLoader makes batches by a class of its own, which knows where it stands.
    replace_part(changed, "batch_sampler", type(batches)(batches.sampler, size, data.drop_last))
    replace_part(changed, "batch_size", size)
    forget_pass(changed)
    return changed


def check_batch_size(size: Any) -> None:
    """Raises TypeError if it is not a whole number, ValueError if it is below 1."""
    if as_whole(size) is None:
        raise TypeError(f"a batch size is a whole number, but got {size!r}")
    if size < 1:
        raise ValueError(f"a batch size is at least 1, but got {size}")
