"""DTensor: where this rank's part of a tensor begins in the whole, as torch.distributed.checkpoint asks it."""

from __future__ import annotations

from typing import Any

import torch

from leyden.distributed.compat.relied_on import Reasons

RELIED_ON: Reasons = {
    "torch.distributed.tensor.DTensor": {
        "__create_chunk_list__": "Checkpoint writes each shard with its place in the whole",
    },
}


def chunk_of(tensor: torch.Tensor) -> Any:
    """This rank's part of a DTensor: `offsets` and `sizes` in the whole."""
    (chunk,) = tensor.__create_chunk_list__()  # type: ignore[attr-defined]
    return chunk
