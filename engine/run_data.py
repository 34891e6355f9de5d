"""The data of an engine's runs: what a user gave, what the setup made of it, and how far the run has come in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from leyden.engine.data_setup import DataSetup
from leyden.engine.feed import Cursor, Feed
from leyden.engine.filters import NEVER
from leyden.engine.limits import Limits
from leyden.engine.state import State


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
        self._restored: dict[str, Any] | None = None  # for the feed of the next run

    def is_open_on(self, data: Any) -> bool:
        """True if a pass over this very data has begun and can go on."""
        return self.feed.iterator is not None and data is self.given

    def open(self, data: Any) -> None:
        """Makes the data ready for the run that begins: anew, or where a restored run was, or one that ended in the
        midst of a pass.
        """
        state, self._restored = self._restored, None
        if state is None and not self._limits.restored and data is self.given:
            position = self._position()
            if self.cursor.epoch_open or (position > 0 and self.streams()):
                state = self.feed.state_dict(position)
        self._take(data, state)

    def replace(self, data: Iterable[Any], *, running: bool) -> None:
        """Takes the next batches from other data."""
        self._restored = None
        self._take(data)
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
        self._restored = None

    # -- passes ----------------------------------------------------------------------------------------------

    def streams(self) -> bool:
        """True if a pass goes on over the bounds of epochs."""
        return self.feed.streams(self._limits.epoch_length)

    def await_pass(self) -> None:
        """An epoch opens and its pass has not begun: what is saved now is the moment before."""
        self.cursor.pass_start = self._state.iteration
        self.feed.forget_pass()

    def begin_pass(self) -> None:
        self.feed.begin_pass()
        self.cursor.pass_start = self._state.iteration
        self._note_end_of_pass()

    def go_on_with_pass(self) -> None:
        self.feed.go_on(self._position())
        self._note_end_of_pass()

    def own_length(self) -> int | None:
        """Batches of the open epoch, where what was left of its data was dealt to another number of ranks."""
        if self.feed.left is None or self.pass_end == NEVER or self._limits.epoch_length is not None:
            return None
        self._state.epoch_length = self.pass_end - self.cursor.epoch_start
        return self._state.epoch_length

    # -- saved -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where this rank stands in its data, as plain data and tensors."""
        return self.feed.state_dict(self._position()) if self._restored is None else self._restored

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there at the next run."""
        self._restored = state

    def _position(self) -> int:
        """Batches of the present pass that were used."""
        return max(0, self._state.iteration - self.cursor.pass_start)

    def _take(self, data: Any, state: dict[str, Any] | None = None) -> None:
        same = data is not None and data is self.given
        self.given = data
        self._make_feed(state)
        if state is None and not self._limits.restored and not self.cursor.epoch_open:
            self.cursor.pass_start = self._state.iteration
        elif same and self.feed.one_shot:
            self.cursor.pass_start = self._state.iteration  # its first batches are gone already

    def _make_feed(self, state: dict[str, Any] | None = None) -> None:
        self.feed = Feed(self._setup(self.given), may_be_empty=self._setup.may_give_none, state=state)
        self._state.dataloader = self.feed.data

    def _note_end_of_pass(self) -> None:
        feed = self.feed
        if feed.length is None or self.streams():
            self.pass_end = NEVER
        elif feed.left is not None:
            self.pass_end = self._state.iteration + feed.left
        else:
            self.pass_end = self.cursor.pass_start + feed.length
