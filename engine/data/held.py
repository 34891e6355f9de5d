"""A run that was stopped between an iteration's first event and its step: what was done for the batch to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from leyden.engine.events.names import Events
from leyden.engine.values.plain_data import given, kept

BEFORE_STEP = (
    Events.GET_BATCH_STARTED,
    Events.DATALOADER_STOP_ITERATION,
    Events.GET_BATCH_COMPLETED,
    Events.ITERATION_STARTED,
)


@dataclass(frozen=True, eq=False)
class Held:
    """The batch, if it was taken, that the next run begins with; `event`: the last one that was fired for it, which
    the next run, like those before it, does not fire once more.
    """

    event: Events
    batch: Any = None

    @property
    def has_batch(self) -> bool:
        return self.event in (Events.GET_BATCH_COMPLETED, Events.ITERATION_STARTED)

    @property
    def fired(self) -> tuple[Events, ...]:
        """The events that were fired for it."""
        return BEFORE_STEP[: BEFORE_STEP.index(self.event) + 1]

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors; empty if the batch is something else: it is then loaded again when the run is
        continued.
        """
        try:
            return {"event": self.event.name, "batch": kept(self.batch)}
        except TypeError:
            return {}

    @classmethod
    def of(cls, state_dict: Mapping[str, Any], device: torch.device) -> Held:
        return cls(Events[state_dict["event"]], given(state_dict["batch"], device))
