"""Which device a rank computes on."""

from __future__ import annotations

import torch


def device_of_rank(local_rank: int | None) -> torch.device:
    """The accelerator of the process with this local rank, or the CPU where the machine has none.

    A process that sees one accelerator uses that one whatever its local rank (SLURM shows each task its own). None asks
    for the accelerator that is current in this process.

    Raises:
        RuntimeError: the process sees several accelerators, but not one for its local rank.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    if local_rank is None:
        return torch.device(accelerator.type, torch.accelerator.current_device_index())
    count = torch.accelerator.device_count()
    if local_rank >= count > 1:
        raise RuntimeError(
            f"local rank {local_rank} has no {accelerator.type} device of its own: this process sees {count}; "
            f"start at most {count} processes on this machine, or use backend='gloo'"
        )
    return torch.device(accelerator.type, 0 if count == 1 else local_rank)
