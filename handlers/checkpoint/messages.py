"""What a run tells of its checkpoints: where they lie, what became of a save, how the script differs from the one that
was saved. On rank 0, since all ranks would tell the same.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Sequence

from leyden import distributed as dist
from leyden.handlers.checkpoint.saving.writer import Ended
from leyden.handlers.checkpoint.store.paths import StoragePath
from leyden.handlers.checkpoint.store.retention import Keeping

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that has no room, or no more for this user or file."""


def tell_place(directory: StoragePath, keeping: Keeping) -> None:
    """Prints where the checkpoints of a run lie, and which stay."""
    if dist.rank() == 0:
        print(f"Checkpoint saves to {directory}, and keeps {keeping.describe()}", flush=True)


def tell_no_model(directory: StoragePath) -> None:
    """Warns of an engine that has no model for its checkpoints."""
    warnings.warn(
        f"the checkpoints in {directory} will hold no model: the engine has no Update. Attach Checkpoint to the engine "
        "that trains; for a process function without Update name what is to be saved: "
        'extra={"model": model, "optimizer": optimizer}',
        stacklevel=3,
    )


def tell_differences(path: StoragePath, differences: Sequence[str]) -> None:
    """Warns of a script that differs from the one whose run goes on."""
    if differences and dist.rank() == 0:
        listed = "\n  ".join(differences)
        warnings.warn(f"the script is not that of the run in {path}, which goes on:\n  {listed}", stacklevel=2)


def tell_failure(ended: Ended, keeping: Keeping) -> None:
    """Warns of a save that failed, and that the run goes on without."""
    if dist.rank() != 0:
        return
    reason = f"{type(ended.error).__name__}: {ended.error}"
    advice = ""
    if isinstance(ended.error, OSError) and ended.error.errno in FULL:
        keeps = "" if keeping.keep is None else f", and {keeping.describe()} are kept (keep= says how many)"
        advice = (
            f". Older ones go only once a new one is whole{keeps}: nothing more is saved until there is room for one "
            "beside them. Delete what is not needed, the oldest checkpoints say"
        )
    warnings.warn(
        f"the checkpoint {ended.path} could not be written: {reason}. The older ones are as they were{advice}",
        stacklevel=2,
    )


def tell_remarks(ended: Ended) -> None:
    """Warns of what is to be told of a save beside how it ended."""
    if dist.rank() == 0:
        for remark in ended.remarks:
            warnings.warn(remark, stacklevel=2)
