"""Warns of plans by epoch or batch that the run can't carry out."""

from __future__ import annotations

import warnings
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine


def warn_if_beyond(engine: Engine[Any, Any], what: str, epoch: int, effect: str) -> None:
    """Warns, when a run starts, of an epoch that it does not reach. `what` names the plan, `effect` the consequence."""
    last = engine.state.max_epochs
    if last is not None and epoch > last and not engine.state.dry_run and dist.rank() == 0:
        warnings.warn(f"{what} epoch {epoch}, and the run ends after epoch {last}: {effect}", stacklevel=3)
