"""A batch of which another calls forward, loss and backward: a pipeline's schedule, for each micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from leyden.engine.events.names import UpdateEvents
from leyden.engine.step.slots import Driver

if TYPE_CHECKING:
    from leyden.engine.step.update import Update


def drive_by(
    driver: Driver,
    update: Update,
    forward: Callable[[Any], Any],
    inputs: Any,
    targets: Any,
    loss_fn: Callable[[Any, Any], torch.Tensor],
    weight: torch.Tensor | float | None,
) -> tuple[Any, torch.Tensor | None]:
    """See `Update.drive`. Forward and backward passes take turns in there, so their events lie around all of them."""

    def transform(loss: torch.Tensor, parts: int) -> torch.Tensor:
        return update.transform_loss(loss if parts == 1 else loss / parts, weight)

    step = update.steps + 1
    with update.forward():
        try:
            weight = update.weigh(weight)
            if step >= (started := update.tables[UpdateEvents.BACKWARD_STARTED]).due:
                started.fire(step)
            update.went_backward = update.batch_open = True
            output, loss = driver.drive(update, forward, inputs, targets, loss_fn, transform)
            if update.slots.scaler is not None:  # which has to begin on a rank that has no loss, too
                update.slots.scaler.scale(torch.zeros((), device=update.engine.device))
            if step >= (completed := update.tables[UpdateEvents.BACKWARD_COMPLETED]).due:
                completed.fire(step)
        except BaseException:
            update.give_up()
            raise
    update.close()
    return output, loss
