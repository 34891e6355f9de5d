"""What an engine is told while it runs: to stop, to save; and how it fires its events meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from leyden.engine.events.dispatch import Table
from leyden.engine.events.names import Event, Events
from leyden.engine.events.registry import Registry
from leyden.engine.randomness.generators import GeneratorsKept
from leyden.engine.resume.suspension import Suspension
from leyden.engine.stopping.requests import StopRequests
from leyden.engine.stopping.stops import Stop, Suspended


class Control(Registry):
    """An engine's stops and events. `Loop` obeys them."""

    def __init__(self) -> None:
        super().__init__()
        self.logger = logging.getLogger("leyden.engine")
        """Gets a line for each run and epoch, at level INFO; another logger may be put here."""
        self._stop_requests = StopRequests(self.state)
        self.interrupted = False
        """The last run was stopped by `interrupt`, and the next one goes on from there."""
        self.suspended: Suspension | None = None
        """Where a run was stopped among the handlers of an event; None if it was not, or has gone on there."""
        self.resumed_at: Event | None = None
        """The event whose handlers go on where they were stopped, while they do."""
        self._guests: list[Control] = []  # which run in a handler of this one, and stop with it
        self._host: Control | None = None
        self._interrupt_requested = False

    def terminate(self, skip_completed: bool = False, *, diverged: bool = False) -> None:
        """Ends the run after the event or the step it is called in: TERMINATE, COMPLETED, CLOSED follow; with
        `skip_completed` no COMPLETED. Where that is before the step of a batch, the next `run` begins with this batch.

        Where ranks share their stops, all end after the same iteration, at most 128 iterations later. `diverged` says
        that the numbers are lost, and sets `state.diverged` on all of them.
        """
        if diverged:
            self._stop_requests.add(Stop.DIVERGED)
        if skip_completed:
            self._stop_requests.add(Stop.SKIP_COMPLETED)
        self._stop_requests.add(Stop.TERMINATE)

    def terminate_epoch(self, skip_epoch_completed: bool = False) -> None:
        """Ends the epoch after the event or the step it is called in: TERMINATE_SINGLE_EPOCH, EPOCH_COMPLETED
        follow; with `skip_epoch_completed` no EPOCH_COMPLETED.
        """
        if skip_epoch_completed:
            self._stop_requests.add(Stop.SKIP_EPOCH_COMPLETED)
        self._stop_requests.add(Stop.EPOCH)

    def interrupt(self, *, after_step: bool = False) -> None:
        """Stops the run after the event or the step it is called in: INTERRUPT, CLOSED follow. The next `run` goes on
        from there; where that is before the step of a batch, with this batch. `after_step`: an iteration that has begun
        is finished first; for signal handlers and threads, which come at any moment.
        """
        self._interrupt_requested = True
        if after_step:
            self._stop_requests.add(Stop.AFTER_STEP)
        self._stop_requests.add(Stop.INTERRUPT)
        for guest in tuple(self._guests):
            guest.interrupt(after_step=after_step)

    @property
    def should_terminate(self) -> bool:
        """Whether the run was told to terminate. Setting it to True is `terminate()`; to False, taking that back."""
        return self._stop_requests.asks(Stop.TERMINATE)

    @should_terminate.setter
    def should_terminate(self, value: bool) -> None:
        if value:
            self.terminate()
        else:
            self._stop_requests.take_back(Stop.TERMINATE, Stop.SKIP_COMPLETED)

    @property
    def should_terminate_single_epoch(self) -> bool:
        """The same for `terminate_epoch()`."""
        return self._stop_requests.asks(Stop.EPOCH)

    @should_terminate_single_epoch.setter
    def should_terminate_single_epoch(self, value: bool) -> None:
        if value:
            self.terminate_epoch()
        else:
            self._stop_requests.take_back(Stop.EPOCH, Stop.SKIP_EPOCH_COMPLETED)

    @property
    def should_interrupt(self) -> bool:
        """The same for `interrupt()`."""
        return self._stop_requests.asks(Stop.INTERRUPT)

    @should_interrupt.setter
    def should_interrupt(self, value: bool) -> None:
        if value:
            self.interrupt()
        else:
            self._interrupt_requested = False
            self._stop_requests.take_back(Stop.INTERRUPT, Stop.AFTER_STEP)

    @contextmanager
    def hosting(self, guest: Control) -> Iterator[None]:
        """For a handler that runs another engine within this context: an interrupt of this engine, also one asked for
        before, stops that one after its running iteration. This one then stops in that very handler, with which its
        next run goes on; the handler has to let `guest` go on too (`resumed_at` tells it).

        Only for handlers of events at which a run can go on (`GOES_ON_AT`).
        """
        self._guests.append(guest)
        guest._host = self
        try:
            yield
        finally:
            self._guests.remove(guest)
            guest._host = None
        if guest.interrupted:
            raise Suspended

    def request_save(self) -> None:
        """Asks for a checkpoint: SAVE_REQUESTED is fired where an iteration ends, the running one or, where ranks share
        their stops, one at most 128 iterations later. May be called from a thread or a signal handler.
        """
        self._stop_requests.add(Stop.SAVE)

    def share_stops(self) -> None:
        """From the next run on, what one rank decides about stopping holds for all; every rank must run this engine."""
        self._stop_requests.shared = True

    @property
    def is_hosted(self) -> bool:
        """It runs in a handler of another engine, within `hosting`."""
        return self._host is not None

    @property
    def shares_stops(self) -> bool:
        """`share_stops` was called, by a handler perhaps."""
        return self._stop_requests.shared

    def _forget_stop_requests(self) -> None:
        self._stop_requests.forget()
        self.interrupted = self._interrupt_requested = False
        if self._host is not None and self._host._interrupt_requested:
            self.interrupt()

    def _note_suspension(self, stop: Suspended, terminated: bool) -> None:
        requests = self._stop_requests.take_all()
        table, entry = stop.place
        done = {Stop.INTERRUPT, Stop.AFTER_STEP, Stop.FINISH}
        self.suspended = Suspension.at(table, entry, terminated=terminated, requests=frozenset(requests - done))

    def _is_suspended_at(self, event: Event) -> bool:
        return self.suspended is not None and self.suspended.event is event

    # -- events ----------------------------------------------------------------------------------------------

    def _fire(self, event: Event, count: int = 0) -> None:
        table = self._tables[event]
        if self._is_suspended_at(event):
            self._fire_rest(table, count)
        elif count >= table.due:
            table.fire(count)

    def _fire_rest(self, table: Table, count: int) -> None:
        """Fires an event, beginning with the handler in which the run was stopped. Handlers of STARTED all run once
        more, as they prepare this process.
        """
        suspended, self.suspended = self.suspended, None
        assert suspended is not None
        self.resumed_at = table.event
        try:
            if table.event is Events.STARTED:
                index = 0 if self.state.iteration else suspended.find(table)
                with GeneratorsKept():  # what comes before has been drawn already
                    table.fire_before(index, count)
                table.fire_from(index, count)
            else:
                table.fire_from(suspended.find(table), count)
        finally:
            self.resumed_at = None
        for stop in suspended.requests:
            self._stop_requests.add(stop)

    def _rearm(self, wake: bool = True) -> None:
        for table in self._tables.values():
            table.rearm(wake)
        for update in self.updates.values():
            update.rearm(wake)
