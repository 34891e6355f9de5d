"""DistributedDataParallel around a module that is called by itself.

The public class counts a pass when its own forward is called. Replicas are of modules that a user calls, in parts or
several times a pass, so the parts of that forward are called one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden.distributed.compat.relied_on import Reasons

RELIED_ON: Reasons = {
    "torch.distributed": {
        "_DEFAULT_FIRST_BUCKET_BYTES": "DataParallel knows whether torch.compile can split a graph at its buckets",
    },
    "torch.nn.parallel.DistributedDataParallel": {
        "_pre_forward": "DataParallel begins a pass of a module that the user calls",
        "_post_forward": "DataParallel makes the reducer ready for the backward pass of it",
        "_active_ddp_module": "DataParallel lets torch.compile split a graph where gradients are exchanged",
        "_sync_buffers": "DataParallel shares buffers before an evaluation",
        "_set_params_and_buffers_to_ignore_for_model": "Quantize keeps torchao's tensors out of the broadcast",
    },
}

_IGNORED = "_ddp_params_and_buffers_to_ignore"
"""The attribute of a module in which DistributedDataParallel looks for what it is to leave out."""


def begin_pass_of_replica(replica: DistributedDataParallel) -> None:
    """What comes before the module is called."""
    replica._pre_forward()
    # Whoever compiles a graph now splits it at this one's buckets, so that their exchange overlaps the backward pass.
    if replica.bucket_bytes_cap >= torch.distributed._DEFAULT_FIRST_BUCKET_BYTES:  # else torch has an assertion fail
        DistributedDataParallel._active_ddp_module = replica


def end_pass_of_replica(replica: DistributedDataParallel, outputs: Any) -> Any:
    """What comes after it: outputs through which the reducer sees which parameters were used."""
    DistributedDataParallel._active_ddp_module = None
    return replica._post_forward(outputs)


def share_buffers_of_replica(replica: DistributedDataParallel) -> None:
    """Gives the module's buffers rank 0's values, if they are shared."""
    if replica.broadcast_buffers and replica.modules_buffers:
        replica._sync_buffers()


def leave_out_of_replicas(module: nn.Module, names: Collection[str]) -> None:
    """Lets a DistributedDataParallel that is made later neither broadcast nor reduce these parameters."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, list(names))


@contextmanager
def leaving_out(module: nn.Module, names: Collection[str]) -> Iterator[None]:
    """The same for one that is made inside, beside what others let it leave out; it leaves no mark."""
    before = getattr(module, _IGNORED, None)
    # The reducer writes a parameter of the module itself with a dot before it.
    setattr(module, _IGNORED, [*(before or ()), *names, *(f".{name}" for name in names)])
    try:
        yield
    finally:
        if before is None:
            delattr(module, _IGNORED)
        else:
            setattr(module, _IGNORED, before)
