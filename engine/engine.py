"""The loop. It fires events around a function that the user supplies; all other behaviour is attached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from leyden import distributed as dist
from leyden.engine.data_setup import DataSetup
from leyden.engine.describe import describe
from leyden.engine.dispatch import Table, check_process
from leyden.engine.events import Event, Events
from leyden.engine.feed import Cursor, Feed
from leyden.engine.filters import NEVER
from leyden.engine.limits import Limits
from leyden.engine.rank_state import copied, of_this_rank, rank_snapshot, restore_ranks
from leyden.engine.registry import Registry
from leyden.engine.run_data import RunData
from leyden.engine.setup import Setup, Stage
from leyden.engine.snapshot import restore, snapshot
from leyden.engine.state import State
from leyden.engine.stopping import (
    ANY_STOP,
    BEFORE_STEP,
    ENDS_RUN,
    EpochTerminated,
    Interrupted,
    Stop,
    Suspended,
    Terminated,
)
from leyden.engine.suspension import Suspension
from leyden.engine.wishes import Wishes

Batch = TypeVar("Batch")
Output = TypeVar("Output")
Process = Callable[["Engine[Batch, Output]", Batch], Output]


class Engine(Registry, Generic[Batch, Output]):
    """Runs `process(engine, batch)` over data, epoch after epoch, and fires events around it.

    `process` returns the output of an iteration, which is then `engine.state.output`. `training=False` says that it
    runs forward passes only, so that handlers of the forward pass (MixedPrecision) know that no `Update` belongs to it.

    Raises TypeError if `process` can't be called with (engine, batch).
    """

    def __init__(self, process: Process[Batch, Output], *, training: bool = True) -> None:
        super().__init__()
        check_process(process)
        self.process = process
        self.training = training
        self.state = State()
        self.device = dist.device()
        """Where the engine computes: the process's own device, unless who made the engine says otherwise."""
        self.setup = Setup()
        """Functions that prepare models, optimizers and the restored state, by `Stage`."""
        self.data_setup = DataSetup()
        """Functions from the data of a run to the data that is iterated (dealt to ranks, say), by `DataStage`."""
        self.last_iteration = NEVER
        """The iteration at which the running epoch will end; NEVER while its length is unknown."""
        self.run_end = NEVER
        """The iteration at which the run will end by its limit; NEVER while that is unknown."""
        self._limits = Limits()
        self.run_data = RunData(self.state, self._limits, self.data_setup)
        self.cursor = self.run_data.cursor
        self._wishes = Wishes(self.state)
        self._running = False
        self.interrupted = False
        """The last run was stopped by `interrupt`, and the next one goes on from there."""
        self.suspended: Suspension | None = None
        """Where a run was stopped among the handlers of an event; None if it was not, or has gone on there."""
        self.resumed_at: Event | None = None
        """The event whose handlers go on where they were stopped, while they do."""
        self._guests: list[Engine[Any, Any]] = []  # which run in a handler of this one, and stop with it
        self._host: Engine[Any, Any] | None = None
        self._interrupt_wished = False

    def run(
        self,
        data: Iterable[Batch] | None = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        epoch_length: int | None = None,
    ) -> State:
        """Runs until `max_epochs` or `max_iters` and returns the state.

        Without a limit: one epoch, or the limit that the state already has. `epoch_length` batches make an epoch; else
        one pass over the data does. Data shorter than that is begun anew; data without end needs it (or `max_iters`).
        `data=None` takes the data of the run before; where there was none, each batch is None.

        A run that was interrupted, terminated or restored goes on with the next batch; a larger limit continues; the
        same limit again, or `state.max_epochs = None`, starts from the beginning.

        Raises ValueError for limits that contradict each other or the state and for empty data, TypeError for data that
        can't be iterated, and whatever the process function or a handler raises, after EXCEPTION_RAISED and CLOSED.
        """
        if self._running:
            raise RuntimeError("this engine is running already; a run inside its run needs an engine of its own")
        limits, source = self._limits, self.run_data
        limits.check(max_epochs, max_iters, epoch_length)
        data = source.given if data is None else data
        limits.check_data(Feed(data), self.state, max_iters, epoch_length)
        if limits.restarts(self.state, max_epochs, max_iters):
            self._reset()
        continues = source.is_open_on(data)
        self._running = True
        self._forget_wishes()
        failure: BaseException | None = None
        started_at = time.perf_counter()
        try:
            # What is restored may say how data is dealt and batched, so the data comes last.
            self.setup.run(Stage.DEVICE, Stage.RESTORE)
            if not continues:
                source.open(data)
            open_still = self.cursor.epoch_open or self.suspended is not None
            limits.settle(self.state, source.feed, max_epochs, max_iters, epoch_length, open_still)
            self._ready()
            try:
                terminated = self.suspended is not None and self.suspended.terminated
                try:
                    self._run_epochs()
                except Terminated:
                    terminated = True
                    self._fire(Events.TERMINATE)
                self.state.times["COMPLETED"] = time.perf_counter() - started_at
                limits.ended = True
                self._fire(Events.COMPLETED, self.state.epoch)
            except Interrupted as stop:
                limits.ended = False
                self.interrupted = True
                if isinstance(stop, Suspended):
                    self._note_suspension(stop, terminated)
                self._fire(Events.INTERRUPT)
                return self.state
        except BaseException as error:
            failure = error
            limits.ended = True
            self._tables[Events.EXCEPTION_RAISED].fire(0, (error,))
            raise
        finally:
            self._running = False
            self._close(failure)
        return self.state

    def _run_epochs(self) -> None:
        state, limits, cursor, wishes = self.state, self._limits, self.cursor, self._wishes
        self._fire(Events.STARTED, state.epoch)
        if self._ends_suspended():
            return
        wishes.heed(ENDS_RUN)
        while self._is_suspended_at(Events.EPOCH_COMPLETED) or not limits.reached(state, cursor.epoch_open):
            started_at = time.perf_counter()
            if not self._is_suspended_at(Events.EPOCH_COMPLETED):
                try:
                    if not cursor.epoch_cut:
                        self._open_epoch()
                        self._run_epoch()
                    elif self._is_suspended_at(Events.TERMINATE_SINGLE_EPOCH):
                        self._fire(Events.TERMINATE_SINGLE_EPOCH)
                except EpochTerminated:
                    cursor.epoch_cut = True
                    self._fire(Events.TERMINATE_SINGLE_EPOCH)
                wishes.heed(ENDS_RUN)
                ends = limits.reached(state, epoch_open=False)
                for update in self.updates.values():
                    update.flush(run_ends=ends)
                cursor.epoch_open = cursor.epoch_cut = False
                state.times["EPOCH_COMPLETED"] = time.perf_counter() - started_at
            self._fire(Events.EPOCH_COMPLETED, state.epoch)
            if wishes.poll is not None and limits.reached(state, epoch_open=False):
                wishes.add(Stop.FINISH)
            wishes.heed(ENDS_RUN)
            if Stop.FINISH in wishes.heard:
                break

    def _open_epoch(self) -> None:
        """Begins the next epoch, unless one is open already, and makes its data ready."""
        state, cursor, limits, source = self.state, self.cursor, self._limits, self.run_data
        opens = not cursor.epoch_open or self._is_suspended_at(Events.EPOCH_STARTED)
        if not cursor.epoch_open:
            state.epoch += 1
            cursor.epoch_open = True
            cursor.epoch_start = state.iteration
            if self.data_setup.is_outdated():
                source.renew()
            if limits.length is not None:
                state.epoch_length = limits.length  # the epoch before may have had a length of its own
        if opens:
            if not source.streams():
                source.await_pass()
            self._rearm(wake=False)
            self._fire(Events.EPOCH_STARTED, state.epoch)
        if opens and not source.streams():
            source.begin_pass()
        elif source.feed.iterator is None:
            source.go_on_with_pass()
        own_length = source.own_length()
        self.last_iteration = limits.epoch_end(cursor.epoch_start, state.max_iters, own_length)
        self.run_end = limits.run_end(cursor.epoch_start, state, own_length, varies=self.data_setup.varies)
        wishes = self._wishes
        wishes.heed(ANY_STOP)
        if wishes.poll is not None:
            wishes.poll.start_epoch(state.iteration)
        if self._is_suspended_at(Events.ITERATION_COMPLETED):
            self._fire(Events.ITERATION_COMPLETED, state.iteration)
            wishes.obey(ANY_STOP)

    def _run_epoch(self) -> None:
        state, process, tables, source, wishes = self.state, self.process, self._tables, self.run_data, self._wishes
        stops = wishes.heard
        get_batch_started = tables[Events.GET_BATCH_STARTED]
        get_batch_completed = tables[Events.GET_BATCH_COMPLETED]
        iteration_started = tables[Events.ITERATION_STARTED]
        iteration_completed = tables[Events.ITERATION_COMPLETED]
        poll_due = NEVER if wishes.poll is None else wishes.poll.due
        iteration = state.iteration
        while iteration < self.last_iteration:
            iteration += 1
            state.batch = None
            if iteration >= get_batch_started.due:
                get_batch_started.fire(iteration)
                if stops:
                    wishes.obey(BEFORE_STEP)
            try:
                state.batch = next(source.feed.iterator)  # type: ignore[arg-type]
            except StopIteration:
                if not self._refill(iteration):
                    return
            state.output = None
            if iteration >= get_batch_completed.due:
                source.batch_waits = True
                try:
                    get_batch_completed.fire(iteration)
                finally:
                    source.batch_waits = False
                if stops:
                    wishes.obey(BEFORE_STEP)
            state.iteration = iteration
            if iteration >= iteration_started.due:
                iteration_started.fire(iteration)
                if stops:
                    wishes.obey(BEFORE_STEP)
            state.output = process(self, state.batch)
            if iteration >= iteration_completed.due:
                iteration_completed.fire(iteration)
            if iteration >= poll_due:
                poll_due = wishes.ask(iteration)
            if stops:
                if Stop.SAVE in stops:
                    stops.discard(Stop.SAVE)
                    self._fire(Events.SAVE_REQUESTED)
                wishes.obey(ANY_STOP)
            if state.iteration != iteration:  # a handler set the count: filters begin from there
                iteration = state.iteration
                self._rearm()
        if iteration == source.pass_end:
            source.feed.end_pass()

    def _refill(self, iteration: int) -> bool:
        """Gets `state.batch` after the pass over the data ended; False if the epoch is over."""
        state, limits, source = self.state, self._limits, self.run_data
        feed = source.feed
        if limits.length is None:
            state.epoch_length = state.iteration - self.cursor.epoch_start
            feed.require_batch(state.iteration)
            if feed.one_shot or state.epoch_length == 0:
                limits.tell_exhausted(state, feed)
            return False
        self._fire(Events.DATALOADER_STOP_ITERATION, iteration)
        self._wishes.obey(BEFORE_STEP)
        if source.feed is feed and not feed.one_shot:
            source.begin_pass()
        try:
            state.batch = next(source.feed.iterator)  # type: ignore[arg-type]
        except StopIteration:
            source.feed.require_batch(state.iteration)
            limits.tell_exhausted(state, source.feed)
            return False
        return True

    # -- stopping --------------------------------------------------------------------------------------------

    def terminate(self, *, diverged: bool = False) -> None:
        """Ends the run after the event or the step it is called in: TERMINATE, COMPLETED, CLOSED follow.

        Where ranks share their stops, all end after the same iteration, at most 128 iterations later. `diverged` says
        that the numbers are lost, and sets `state.diverged` on all of them.
        """
        if diverged:
            self.state.diverged = True
            self._wishes.add(Stop.DIVERGED)
        self._wishes.add(Stop.TERMINATE)

    def terminate_epoch(self) -> None:
        """Ends the epoch after the event or the step it is called in: TERMINATE_SINGLE_EPOCH, EPOCH_COMPLETED
        follow.
        """
        self._wishes.add(Stop.EPOCH)

    def interrupt(self) -> None:
        """Stops the run after the running iteration: INTERRUPT, CLOSED follow; the next `run` goes on from there."""
        self._interrupt_wished = True
        self._wishes.add(Stop.INTERRUPT)
        for guest in tuple(self._guests):
            guest.interrupt()

    @contextmanager
    def hosting(self, guest: Engine[Any, Any]) -> Iterator[None]:
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
        self._wishes.add(Stop.SAVE)

    def share_stops(self) -> None:
        """From the next run on, what one rank decides about stopping holds for all; every rank must run this engine."""
        self._wishes.shared = True

    def _forget_wishes(self) -> None:
        self._wishes.forget()
        self.interrupted = self._interrupt_wished = False
        if self._host is not None and self._host._interrupt_wished:
            self.interrupt()

    def _note_suspension(self, stop: Suspended, terminated: bool) -> None:
        wishes = self._wishes.take_all()
        table, entry = stop.place
        self.suspended = Suspension.at(
            table, entry, terminated=terminated, wishes=frozenset(wishes - {Stop.INTERRUPT, Stop.FINISH})
        )

    def _is_suspended_at(self, event: Event) -> bool:
        return self.suspended is not None and self.suspended.event is event

    def _ends_suspended(self) -> bool:
        """True if nothing but handlers of COMPLETED is left to run."""
        if not self._is_suspended_at(Events.COMPLETED):
            return False
        assert self.suspended is not None
        if self.suspended.terminated or self._limits.reached(self.state, epoch_open=False):
            return True
        self.suspended = None  # the limit is larger now: COMPLETED comes later, and anew
        return False

    # -- data and state --------------------------------------------------------------------------------------

    def set_data(self, data: Iterable[Batch]) -> None:
        """Takes the next batches from other data; the length of the epoch stays as it is."""
        self.run_data.replace(data, running=self._running)

    def _ready(self) -> None:
        self._wishes.connect()
        for update in self.updates.values():
            update.prepare()
        self._rearm()

    def _reset(self) -> None:
        state = self.state
        state.epoch = state.iteration = state.step = 0
        state.diverged = False
        state.epoch_length = None
        self.cursor.take_over(Cursor())
        self.suspended = None
        self.run_data.forget()
        for update in self.updates.values():
            update.reset()

    def _close(self, failure: BaseException | None) -> None:
        """Runs every CLOSED handler, also after one of them failed; the run's own error goes first."""
        if self._limits.ended:
            self.run_data.close()
        errors = self._tables[Events.CLOSED].fire_all()
        if failure is not None:
            for error in errors:
                failure.add_note(f"then a handler of Events.CLOSED raised {type(error).__name__}: {error}")
            return
        failures = [error for error in errors if isinstance(error, Exception)]
        if len(failures) > 1:
            raise ExceptionGroup("several handlers of Events.CLOSED failed", failures)
        if errors:
            raise (failures or errors)[0]

    def _fire(self, event: Event, count: int = 0) -> None:
        table = self._tables[event]
        if self._is_suspended_at(event):
            self._fire_rest(table, count)
        elif count >= table.due:
            table.fire(count)

    def _fire_rest(self, table: Table, count: int) -> None:
        """Fires an event from the handler on in which the run was stopped. Of STARTED all handlers run once more: they
        prepare this process.
        """
        suspended, self.suspended = self.suspended, None
        assert suspended is not None
        self.resumed_at = table.event
        try:
            if table.event is Events.STARTED:
                table.fire(count)
            else:
                table.fire_from(suspended.find(table), count)
        finally:
            self.resumed_at = None
        for stop in suspended.wishes:
            self._wishes.add(stop)

    def _rearm(self, wake: bool = True) -> None:
        for table in self._tables.values():
            table.rearm(wake)
        for update in self.updates.values():
            update.rearm(wake)

    def state_dict(self, *, own: bool = True) -> dict[str, Any]:
        """Where the run stands, the user's keys of the state, and the states of the updates and the attached handlers;
        plain data and tensors. Models and optimizers are not in it.

        With `own`, what this rank has for itself (`rank_state_dict`) is in it too, in memory of its own: in one
        process nothing is missing; of several ranks each loads what it gave itself.
        """
        state = snapshot(self, fixed_length=self._limits.epoch_length is not None)
        if own:
            state["own"] = {"rank": dist.rank(), "ranks": dist.world_size(), "state": copied(rank_snapshot(self))}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from such a state at the next `run`. Raises ValueError for a mapping that is not one."""
        self._limits.restore(restore(self, state_dict), self.state)
        self.run_data.forget()
        if (states := of_this_rank(state_dict.get("own"))) is not None:
            self.load_rank_state_dicts(states)
        self._rearm()

    def rank_state_dict(self) -> dict[str, Any]:
        """What this rank has for itself beside `state_dict(own=False)`: gradients of an open accumulation window, what
        its metrics have seen of the epoch, an evaluation that was stopped halfway. The tensors may be the live ones.
        """
        return rank_snapshot(self)

    def load_rank_state_dicts(self, states: Sequence[Any]) -> None:
        """Goes on from what each rank had for itself, in the order of ranks; after `load_state_dict`.

        Of as many ranks as there are now, each takes its own, and the others may be None. Where their number differs
        all are needed, and what they had is shared out: nothing is lost, and nothing counts twice.
        """
        restore_ranks(self, states)

    def __str__(self) -> str:
        return describe(self)
