"""The loop: epochs, batches, steps, and the events around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from leyden.engine.control import Control
from leyden.engine.data.limits import Limits
from leyden.engine.data.run_data import RunData
from leyden.engine.data.setup import DataSetup
from leyden.engine.events.names import Events
from leyden.engine.randomness.generators import GeneratorsKept
from leyden.engine.step.step_watch import StepWatch
from leyden.engine.stopping.stops import ANY_STOP, ENDS_NOW, ENDS_RUN, EpochTerminated, Interrupted, Stop, Terminated
from leyden.engine.values.whole_numbers import NEVER


class Loop(Control):
    """What an engine does from STARTED to the end of its last epoch. `Engine` begins and closes it."""

    process: Callable[[Any, Any], Any]

    def __init__(self) -> None:
        super().__init__()
        self.data_setup = DataSetup()
        """Functions from the data of a run to the data that is iterated (dealt to ranks, say), by `DataStage`."""
        self.last_iteration = NEVER
        """The iteration at which the running epoch will end; NEVER while its length is unknown."""
        self.run_end = NEVER
        """The iteration at which the run will end by its limit; NEVER while that is unknown."""
        self._limits = Limits()
        self.run_data = RunData(self.state, self._limits, self.data_setup)
        self.cursor = self.run_data.cursor
        self._step_watch = StepWatch(self.updates)

    def _run_epochs(self) -> None:
        state, limits, cursor, requests = self.state, self._limits, self.cursor, self._stop_requests
        self._fire_started()
        if self._ends_suspended():
            return
        self._step_watch.begin(state.iteration)  # a search at STARTED makes steps and takes them back
        requests.heed(ENDS_RUN)
        while self._is_suspended_at(Events.EPOCH_COMPLETED) or not limits.reached(state, cursor.epoch_open):
            started_at = time.perf_counter()
            skips = False
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
                skips = cursor.epoch_cut and Stop.SKIP_EPOCH_COMPLETED in requests.heard
                requests.heed(ENDS_RUN)
                ends = limits.reached(state, epoch_open=False)
                for update in self.updates.values():
                    if update.batch_open:
                        self._step_watch.tell_unclosed(update.name)
                    update.flush(run_ends=ends)
                cursor.epoch_open = cursor.epoch_cut = False
                state.times["EPOCH_COMPLETED"] = time.perf_counter() - started_at
                self.logger.info("epoch %d took %.1f s", state.epoch, state.times["EPOCH_COMPLETED"])
            if not skips:
                self._fire(Events.EPOCH_COMPLETED, state.epoch)
            if limits.exhausted and limits.epoch_length is None:
                self._ask_for_data()
            if requests.poll is not None and limits.reached(state, epoch_open=False):
                requests.add(Stop.FINISH)
            requests.heed(ENDS_RUN)
            if Stop.FINISH in requests.heard:
                break

    def _fire_started(self) -> None:
        """A run that goes on fires STARTED once more, but its random numbers go on where they were: what handlers draw
        there would not have been drawn by a run that never stopped.
        """
        if self._is_suspended_at(Events.STARTED) or not (self.state.iteration or self.cursor.epoch_open):
            self._fire(Events.STARTED, self.state.epoch)
        else:
            with GeneratorsKept():
                self._fire(Events.STARTED, self.state.epoch)

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
        self._note_ends()
        requests = self._stop_requests
        requests.heed(ANY_STOP)
        if requests.poll is not None:
            requests.poll.start_epoch(state.iteration)
        for event in source.take_held():
            self._tables[event].pass_over(state.iteration + 1)
        if self._is_suspended_at(Events.ITERATION_COMPLETED):
            self._fire(Events.ITERATION_COMPLETED, state.iteration)
            requests.obey(ANY_STOP)

    def _note_ends(self) -> None:
        start, state, own_length = self.cursor.epoch_start, self.state, self.run_data.own_length()
        self.last_iteration = self._limits.epoch_end(start, state.max_iters, own_length)
        self.run_end = self._limits.run_end(start, state, own_length, varies=self.data_setup.varies)

    def _run_epoch(self) -> None:
        state, process, tables, source = self.state, self.process, self._tables, self.run_data
        requests = self._stop_requests
        stops = requests.heard
        get_batch_started = tables[Events.GET_BATCH_STARTED]
        get_batch_completed = tables[Events.GET_BATCH_COMPLETED]
        iteration_started = tables[Events.ITERATION_STARTED]
        iteration_completed = tables[Events.ITERATION_COMPLETED]
        poll_due = NEVER if requests.poll is None else requests.poll.due
        iteration = state.iteration
        while iteration < self.last_iteration:
            iteration += 1
            state.batch = None
            if iteration >= get_batch_started.due:
                get_batch_started.fire(iteration)
                if stops:
                    self._stop_before_step(Events.GET_BATCH_STARTED)
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
                    self._stop_before_step(Events.GET_BATCH_COMPLETED)
            state.iteration = iteration
            if iteration >= iteration_started.due:
                iteration_started.fire(iteration)
                if stops:
                    self._stop_before_step(Events.ITERATION_STARTED)
            state.output = process(self, state.batch)
            if iteration >= iteration_completed.due:
                iteration_completed.fire(iteration)
            if iteration >= poll_due:
                poll_due = requests.ask(iteration)
            if stops:
                if Stop.SAVE in stops:
                    stops.discard(Stop.SAVE)
                    self._fire(Events.SAVE_REQUESTED)
                requests.obey(ANY_STOP)
            if state.iteration != iteration:  # a handler set the count: filters begin from there
                iteration = state.iteration
                self._rearm()
        if iteration == source.pass_end:
            source.feed.end_pass()

    def _ask_for_data(self) -> None:
        """The data can't give another epoch: without `set_data`, by now or when this event fires, the run is over."""
        limits, state, feed = self._limits, self.state, self.run_data.feed
        if feed.one_shot and not limits.reaches_its_limit(state):
            self._fire(Events.DATALOADER_STOP_ITERATION, state.iteration)
        if limits.exhausted:
            limits.tell_exhausted(state, feed)

    def _stop_before_step(self, event: Events) -> None:
        """Obeys a stop after an event that comes before the step: the next run begins with this very batch."""
        try:
            self._stop_requests.obey(ANY_STOP if Stop.AFTER_STEP not in self._stop_requests.heard else ENDS_NOW)
        except (Terminated, Interrupted):
            if event is Events.ITERATION_STARTED:
                self.state.iteration -= 1  # it is counted when it is done
            self.run_data.hold(event)
            raise

    def _refill(self, iteration: int) -> bool:
        """Gets `state.batch` after the pass over the data ended; False if the epoch is over."""
        state, limits, source = self.state, self._limits, self.run_data
        feed = source.feed
        if limits.epoch_length is None:  # nobody asked for more than what a pass gives
            length = state.iteration - self.cursor.epoch_start
            feed.require_batch(state.iteration)
            if length > 0 or not feed.one_shot:
                state.epoch_length = length
                limits.exhausted = feed.one_shot or length == 0
                return False
        self._fire(Events.DATALOADER_STOP_ITERATION, iteration)
        if self._stop_requests.heard:
            self._stop_before_step(Events.DATALOADER_STOP_ITERATION)
        if source.feed is feed and not feed.one_shot:
            source.begin_pass()
        try:
            state.batch = next(source.feed.iterator)  # type: ignore[arg-type]
        except StopIteration:
            source.feed.require_batch(state.iteration)
            limits.tell_exhausted(state, source.feed)
            return False
        return True

    def _ends_suspended(self) -> bool:
        """True if nothing but handlers of COMPLETED is left to run."""
        if not self._is_suspended_at(Events.COMPLETED):
            return False
        assert self.suspended is not None
        if self.suspended.terminated or self._limits.reached(self.state, epoch_open=False):
            return True
        self.suspended = None  # the limit is larger now: COMPLETED comes later, and anew
        return False
