"""What ranks agree on beside the work: a group of all of them, and the store in which they met."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from leyden.distributed.compat import default_store

_LAZY = "TORCH_GLOO_LAZY_INIT"
"""What gloo asks of the environment whenever a group is made; torch takes it from nowhere else."""


def control_group(timeout: timedelta | None = None) -> Any:
    """A gloo group of torch.distributed with all ranks, with the connections that sums need: about 2 log2(W) on each of
    W ranks, where a group otherwise begins with W - 1. Every rank calls it.

    timeout: how long its collectives may wait; None for torch's own.
    """
    before = os.environ.get(_LAZY)
    os.environ[_LAZY] = "1"
    try:
        group = dist.new_group(backend="gloo", timeout=timeout)
    finally:
        if before is None:
            del os.environ[_LAZY]
        else:
            os.environ[_LAZY] = before
    # While all are here: a connection that is made later waits five times the timeout for a rank that is gone.
    dist.all_reduce(torch.zeros(1, dtype=torch.int64), group=group)
    return group


def store() -> Any:
    """The key-value store of torch.distributed through which the ranks met, in which they may leave each other word.

    Raises ValueError where no group is up.
    """
    return default_store()
