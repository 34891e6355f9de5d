"""The data of an engine's runs: what a user gave, what the setup made of it, and how far the run has come in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from leyden import distributed as dist
from leyden.engine.data.feed import Cursor, Feed
from leyden.engine.data.held import Held
from leyden.engine.data.limits import Limits
from leyden.engine.data.part_states import without_layers
from leyden.engine.data.pass_length import known_length
from leyden.engine.data.setup import DataSetup
from leyden.engine.events.names import Events
from leyden.engine.state import State
from leyden.engine.values.whole_numbers import NEVER


class RunData:
    """Keeps the feed of the present run, and moves the cursor as one pass over the data follows another."""

    def __init__(self, state: State, limits: Limits, setup: DataSetup) -> None:
        self._state = state
        self._limits = limits
        self._setup = setup
        self.given: Any = None
        """The data that the user gave."""
        self.feed = Feed(None)
        self.cursor = Cursor()
        self.pass_end = NEVER
        """The iteration at which the present pass ends; NEVER while that is unknown."""
        self.batch_waits = False
        """A batch is there, and its iteration has not begun."""
        self._is_begun = False  # a pass over the data, in this process
        self._in_use: str | None = None  # the data, if `set_data` put it in the place of what the run began with
        self.held: Held | None = None
        """Where the last run was stopped within an iteration, before its step."""
        self._restored: dict[str, Any] | None = None  # for the feed of the next run
        self._between: dict[str, Any] | None = None  # the same, for a run that begins anew

    def is_open_on(self, data: Any) -> bool:
        """True if a pass over this very data has begun and can go on."""
        return self.feed.iterator is not None and data is self.given

    def open(self, data: Any) -> None:
        """Makes the data ready for the run that begins: anew, or where a restored run was, or one that ended in the
        midst of a pass.
        """
        state, self._restored = self._restored, None
        if state is not None and (in_use := state.get("replaced")) is not None:
            self._in_use = in_use
            if data is not self.given and dist.rank() == 0:
                _tell_of_other_data(in_use, data)
        if state is None and not self._limits.restored and data is self.given:
            position = self._position()
            if self.cursor.epoch_open or (position > 0 and self.streams()):
                state = self.feed.state_dict(position)
        between, self._between = self._between, None
        self._take(data, state, between)

    def hold(self, event: Events) -> None:
        """The run stops after this event; the batch, if it is there, is for the next one."""
        self.held = Held(event, self._state.batch)

    def take_held(self) -> tuple[Events, ...]:
        """Lets the pass begin with the batch that is held, if there is one. Gives the events that were fired for it."""
        held, self.held = self.held, None
        if held is None:
            return ()
        if held.has_batch:
            assert self.feed.iterator is not None
            self.feed.iterator = chain((held.batch,), self.feed.iterator)
        return held.fired

    def replace(self, data: Iterable[Any], *, running: bool) -> None:
        """Takes the next batches from other data; an epoch that has a length keeps it."""
        if not running and "replaced" in (self._restored or {}):
            self.given, self._is_begun = data, False  # the data of a run that was restored, which goes on in it
            return
        self._restored = self.held = None
        before = self.feed
        self._take(data)
        if running or self.cursor.epoch_open:
            self._limits.keep_length(self._state, before, self.feed)
            self._in_use = f"a {type(data).__name__} of {_batches(self.feed.length)}"
        self._limits.exhausted = False
        self.cursor.pass_start = self._state.iteration
        if running:
            self.begin_pass()
            if self.batch_waits:
                self.cursor.pass_start += 1  # the iteration to come has its batch from the data before
                self._note_end_of_pass()

    def renew(self) -> None:
        """Makes the data anew for the epoch that begins; its length is the epoch's."""
        self._make_feed()
        self.cursor.pass_start = self._state.iteration
        self._limits.follow(self._state, self.feed)

    def close(self) -> None:
        """The next run begins a pass anew, or goes on by what is saved of this one."""
        self.feed.iterator = None

    def forget(self) -> None:
        """Forgets where a run stood: from the beginning, or from what is loaded next."""
        self.close()
        self._restored = self._in_use = self.held = None

    # -- passes ----------------------------------------------------------------------------------------------

    def streams(self) -> bool:
        """True if a pass runs on from one epoch to the next."""
        return self.feed.streams(self._limits.epoch_length)

    def await_pass(self) -> None:
        """An epoch opens and its pass has not begun: what is saved now is the moment before."""
        self.cursor.pass_start = self._state.iteration
        self.feed.forget_pass()

    def begin_pass(self) -> None:
        if self.feed.measure():
            self._limits.follow(self._state, self.feed)
        self._is_begun = True
        self.feed.begin_pass()
        if self._limits.length is None:
            self.feed.tell_of_more()
        self.cursor.pass_start = self._state.iteration
        self._note_end_of_pass()

    def go_on_with_pass(self) -> None:
        self._is_begun = True
        self.feed.go_on(self._position())
        self._note_end_of_pass()

    def own_length(self) -> int | None:
        """Batches of the open epoch, where what was left of its data was dealt to another number of ranks; None also
        where the pass alone will tell.
        """
        left = self.feed.left
        if left is None or self._limits.epoch_length is not None or self.streams():
            return None
        self._state.epoch_length = self._state.iteration + left - self.cursor.epoch_start
        return self._state.epoch_length if self.feed.keeps_its_length else None

    # -- saved -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where this rank stands in its data, as plain data and tensors."""
        if self._restored is not None:
            return self._restored
        state = self.feed.state_dict(self._position())
        return state if self._in_use is None else state | {"replaced": self._in_use}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there at the next run."""
        self._restored = state

    def between_passes(self) -> Callable[[], dict[str, Any]]:
        """A function that tells, after a run, what a next run on the same data begins from: workers that stay, say."""
        feed, position = self.feed, self._position()

        def state() -> dict[str, Any]:
            told = {key: value for key, value in feed.state_dict(position).items() if key != "began"}
            return told | {"now": without_layers(told["now"])} if "now" in told else told

        return state

    def begin_like(self, state: dict[str, Any]) -> None:
        """Begins the data of the next run, if it begins anew, as in the process that told this state."""
        self._between = state

    def _position(self) -> int:
        """Batches of the present pass that were used, or are held for the next run."""
        held = self.held is not None and self.held.has_batch
        return max(0, self._state.iteration + held - self.cursor.pass_start)

    def _take(self, data: Any, state: dict[str, Any] | None = None, between: dict[str, Any] | None = None) -> None:
        same = data is not None and data is self.given
        if not same and not self._limits.restored:
            self.held = None  # it is a batch of the data before
        goes_on = same and self._is_begun
        self.given, self._is_begun = data, False
        self._make_feed(between if state is None else state)
        if state is None and not self._limits.restored and not self.cursor.epoch_open:
            self.cursor.pass_start = self._state.iteration
        elif goes_on and self.feed.one_shot:  # its first batches are gone already
            self.cursor.pass_start = self._state.iteration + (self.held is not None and self.held.has_batch)

    def _make_feed(self, state: dict[str, Any] | None = None) -> None:
        self.feed = Feed(self._setup(self.given), may_be_empty=self._setup.may_give_none, state=state)
        self._state.note_data(self.feed.data)

    def _note_end_of_pass(self) -> None:
        feed = self.feed
        if feed.exact_length is None or self.streams():
            self.pass_end = NEVER
        elif feed.left is not None:
            self.pass_end = self._state.iteration + feed.left
        else:
            self.pass_end = self.cursor.pass_start + feed.exact_length


def _tell_of_other_data(in_use: str, data: Any) -> None:
    given = f"a {type(data).__name__} of {_batches(known_length(data))}"
    warnings.warn(
        f"the run that goes on had its batches from data that set_data() had put in the place of what it began with: "
        f"{in_use}. Now it goes on at the same place in the data given to run(), {given}. If that is other data, call "
        "set_data() with what was in use, and then run() without data",
        stacklevel=2,
    )


def _batches(length: int | None) -> str:
    return "an unknown number of batches" if length is None else f"{length} batches"
