"""Process groups: what torch does not tell of a group that others have made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch

from leyden.distributed.compat.relied_on import Reasons

RELIED_ON: Reasons = {
    "torch.distributed.distributed_c10d": {
        "_get_default_store": "ranks that write a checkpoint leave each other word there",
    },
    "torch.distributed.ProcessGroup": {
        "_get_backend": "agreements and checkpoints wait as long as the default group does",
    },
    "torch.distributed.ProcessGroup.Options": {
        "_timeout": "agreements and checkpoints wait as long as the default group does",
    },
}


def default_store() -> Any:
    """The key-value store through which the default group was made."""
    return torch.distributed.distributed_c10d._get_default_store()


def timeout_of(group: Any, device: torch.device) -> timedelta | None:
    """How long a collective of the group waits for the other ranks on that device; None where torch does not tell."""
    options = getattr(group._get_backend(device), "options", None)
    timeout = getattr(options, "_timeout", None)
    return timeout if isinstance(timeout, timedelta) else None
