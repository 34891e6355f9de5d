"""What lies around all of a batch's forward and backward passes: a context that shards buffers or patches attention."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from leyden.engine.events.listeners import Order
from leyden.engine.events.names import Events
from leyden.engine.step.slots import Slots

if TYPE_CHECKING:
    from leyden.engine.engine import Engine


class Spanned:
    """The part of an `Update` that enters the span slot at a batch's first forward pass, and leaves it in every case:
    after its last backward pass, after an error, and at the iteration's end where no backward pass came.
    """

    engine: Engine[Any, Any]
    slots: Slots
    open_span: AbstractContextManager[Any] | None = None
    """The context that was entered and is not left."""
    _span_of: Any = None  # the batch it was given
    _span_watched = False

    def enter_span(self) -> None:
        """Enters the span of the engine's batch, unless that is open; one of a batch before is left."""
        batch = self.engine.state.batch
        if self.open_span is not None:
            if self._span_of is batch:
                return
            self.leave_span()
        assert self.slots.span is not None
        span = self.slots.span(batch)
        span.__enter__()
        self.open_span, self._span_of = span, batch

    def leave_span(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leaves it, if it is open, as a `with` statement does."""
        span, self.open_span, self._span_of = self.open_span, None, None
        if span is not None:
            span.__exit__(kind, error, traceback)

    def watch_span(self) -> None:
        """At the start of a run: where there is a span, sees to it that none outlasts its iteration."""
        if self.slots.span is None or self._span_watched:
            return
        self._span_watched = True
        for event in (Events.ITERATION_COMPLETED, Events.CLOSED):
            self.engine.add_event_handler(event, self.leave_span, order=Order.FIRST)
