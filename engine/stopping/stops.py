"""What may be asked of a run, and the exceptions by which it leaves its loops."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Stop(Enum):
    """What may be asked of a run. Asked for in a set, since adding to one is safe from a signal handler or a thread."""

    TERMINATE = "terminate"
    EPOCH = "epoch"
    INTERRUPT = "interrupt"
    AFTER_STEP = "after_step"
    """Goes with INTERRUPT: an iteration that has begun is finished first."""
    DIVERGED = "diverged"
    """Goes with TERMINATE: the numbers are lost."""
    FINISH = "finish"
    """A rank has reached its limit; asked by the engine itself, so that no rank begins an epoch alone."""
    SKIP_COMPLETED = "skip_completed"
    """Goes with TERMINATE: COMPLETED is not fired."""
    SKIP_EPOCH_COMPLETED = "skip_epoch_completed"
    """Goes with EPOCH: EPOCH_COMPLETED is not fired."""
    SAVE = "save"
    """Nothing stops: a checkpoint is asked for, which ranks save after the same iteration."""


ANY_STOP = frozenset({Stop.TERMINATE, Stop.EPOCH, Stop.INTERRUPT})
ENDS_NOW = frozenset({Stop.TERMINATE, Stop.EPOCH})
ENDS_RUN = frozenset({Stop.TERMINATE, Stop.INTERRUPT})


class Terminated(Exception):
    """Leaves the loop of a run."""


class EpochTerminated(Exception):
    """Leaves the loop of an epoch."""


class Interrupted(Exception):
    """Leaves the loop of a run, which can be continued."""


class Suspended(Interrupted):
    """Leaves the handlers of an event too, from the one that raises it; the next run goes on there."""

    place: Any = None
    """The event and the handler, as the event noted when it came by."""
