"""What surrounds a forward pass: count, span, events, autocast, whether gradients will be exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leyden.engine.events.names import UpdateEvents

if TYPE_CHECKING:
    from leyden.engine.step.update import Update


class ForwardPass:
    """The context of a forward pass, one object for all of them: nothing is made in a step."""

    __slots__ = ("_update",)

    def __init__(self, update: Update) -> None:
        self._update = update

    def __enter__(self) -> None:
        update = self._update
        slots = update.slots
        if not update.batch_begun:
            update.begin_batch()
        if slots.span is not None:
            update.enter_span()
        step = update.steps + 1
        if step >= (started := update.tables[UpdateEvents.FORWARD_STARTED]).due:
            started.fire(step)
        if slots.sync is not None:
            slots.sync.begin(update, update.closes_next())
        if slots.autocast is not None:
            slots.autocast.__enter__()

    def __exit__(self, *error: Any) -> None:
        update = self._update
        if update.slots.autocast is not None:
            update.slots.autocast.__exit__(*error)
        if error[0] is not None and update.open_span is not None:
            update.leave_span(*error)
        step = update.steps + 1
        if error[0] is None and step >= (completed := update.tables[UpdateEvents.FORWARD_COMPLETED]).due:
            completed.fire(step)
