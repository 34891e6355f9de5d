"""One pass over several loaders, each with a pass of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from leyden.engine.data import END, DataPass, known_length
from leyden.engine.randomness import Aside, host_state, set_host_state


class CombinedPass(Iterator[Any]):
    """Rows of batches from loaders, as the `mode` of `CombinedLoader` says, `rows` of them if that is known.

    It counts rows, and for each loader knows in which row its present pass began, so that each can be begun again at
    the batch it had come to.
    """

    def __init__(
        self, loaders: Sequence[tuple[Any, Any]], mode: str, rows: int | None, states: Sequence[Any] | None = None
    ) -> None:
        self._pairs = loaders
        self._mode = mode
        self._rows = rows
        given = [None] * len(loaders) if states is None else list(states)
        self._passes = [
            DataPass(loader, None if state is None else state["pass"])
            for (_, loader), state in zip(loaders, given, strict=True)
        ]
        self._states = given
        self.waits = True
        """True before the pass is begun or continued."""
        self._iterators: list[Iterator[Any] | None] = [None] * len(loaders)
        self._begun_at = [0] * len(loaders)
        self._ended_at: list[int | None] = [None] * len(loaders)  # the row for which it had no batch, at first
        # Each as it was when its present pass began, if other rows came before.
        self._before: list[Any] = [None] * len(loaders)
        self._hosts: list[Any] = [None] * len(loaders)  # what a pass begins from that was begun, of rows read ahead
        lengths = [known_length(loader) for _, loader in loaders]
        self._said = [math.inf if length is None else length for length in lengths]
        self._row = 0
        self._iterator = self._iterate()

    def begin(self) -> CombinedPass:
        """Begins the loaders that go side by side and have workers, which start together.

        The others begin when their first batch is asked for: what each draws at its beginning, and for its first batch,
        is then drawn in one go, and can be drawn again without the others.
        """
        self.waits = False
        if self._mode != "sequential":
            for place, (_, loader) in enumerate(self._pairs):
                if getattr(loader, "num_workers", 0) > 0:
                    self._iterators[place] = self._passes[place].begin()
        return self

    def end(self) -> CombinedPass:
        """Before the pass begins: forgets that the continued run had stopped within a pass."""
        self._states = [None] * len(self._pairs)
        for each in self._passes:
            each.end()
        return self

    def go_on_at(self, row: int) -> CombinedPass:
        """Continues a pass of which `row` rows have been used."""
        self.waits = False
        self._row = row
        for place, state in enumerate(self._states):
            if state is None:
                self._skip_to(place, row)
                continue
            self._begun_at[place], self._ended_at[place] = state["begun_at"], state["ended_at"]
            self._hosts[place] = state.get("host")
            if self._has_ended(place) and self._mode != "max_size_cycle":
                self._iterators[place] = iter(())
            elif state["begun"]:
                self._iterators[place] = self._passes[place].go_on(row - state["begun_at"])
        return self

    def _skip_to(self, place: int, row: int) -> None:
        """Where a loader stands if only the number of rows was saved."""
        lengths = [len(loader) for _, loader in self._pairs] if self._mode != "min_size" else []
        begun_at = 0
        if self._mode == "sequential":
            begun_at = sum(lengths[:place])
            if row < begun_at or (row == begun_at and place > 0):
                return
            if row >= begun_at + lengths[place]:
                self._ended_at[place] = begun_at + lengths[place]
        elif lengths and row > lengths[place]:
            self._ended_at[place] = lengths[place]
        if self._mode == "max_size_cycle" and row > 0:
            begun_at = (row - 1) // lengths[place] * lengths[place]
        self._begun_at[place] = begun_at
        if self._has_ended(place) and self._mode != "max_size_cycle":
            self._iterators[place] = iter(())
        else:
            self._iterators[place] = self._passes[place].go_on(row - begun_at)

    @property
    def dealt_anew(self) -> bool:
        """True if what was left of a loader was dealt to another number of ranks."""
        return any(each.left is not None for each in self._passes)

    def left(self) -> int | None:
        """The number of rows left, if known."""
        if not self.dealt_anew:
            return None if self._rows is None else max(0, self._rows - self._row)
        lefts: list[int] = []
        for place, (_, loader) in enumerate(self._pairs):
            left = self._passes[place].left
            if self._has_ended(place):
                left = 0
            elif left is None:
                left = len(loader)
            lefts.append(left)
        if self._mode == "sequential":
            return sum(lefts)
        if self._mode == "max_size_cycle":
            return max(lefts)
        return min(lefts) if self._mode == "min_size" else max(lefts)

    def state_dict(self, row: int) -> list[Any]:
        """Where each loader stands after `row` rows, in their order."""
        given = self._states if self.waits else [None] * len(self._passes)
        return [self._state_of(place, row) if state is None else state for place, state in enumerate(given)]

    def _state_of(self, place: int, row: int) -> dict[str, Any]:
        ended_at = self._ended_at[place]
        state = {"ended_at": None if ended_at is None or ended_at > row else ended_at}
        begun_at = self._begun_at[place]
        before = self._before[place]
        if row <= begun_at and before is not None:  # rows are read ahead, into the next pass already
            return {**state, **before, "pass": before["pass"] | {"position": max(0, row - before["begun_at"])}}
        state["begun"] = row >= begun_at and self._iterators[place] is not None
        if self._hosts[place] is not None:
            state["host"] = self._hosts[place]
        return {**state, "begun_at": begun_at, "pass": self._passes[place].state_dict(max(0, row - begun_at))}

    def _has_ended(self, place: int) -> bool:
        return self._ended_at[place] is not None

    def _note_end(self, place: int) -> None:
        if self._ended_at[place] is None:
            self._ended_at[place] = self._row

    def __next__(self) -> Any:
        return next(self._iterator)

    def _iterate(self) -> Iterator[Any]:
        if self._mode == "sequential":
            yield from self._one_after_the_other()
            return
        last = self._row + (self.left() or 0) if self._rows is not None else None
        # Where the end is known, none of the loaders is asked for a batch that would be thrown away.
        while (last is None or self._row < last) and (row := self._next_row()) is not None:
            self._row += 1
            yield row

    def _one_after_the_other(self) -> Iterator[Any]:
        for place, (key, _) in enumerate(self._pairs):
            while (batch := self._next(place)) is not END:
                self._row += 1
                yield key, batch
            self._note_end(place)

    def _next_row(self) -> list[Any] | None:
        row: list[Any] = [None] * len(self._pairs)
        for place in self._places():
            batch = self._next(place)
            if batch is END:
                self._note_end(place)
                if self._mode == "min_size" or all(map(self._has_ended, range(len(self._pairs)))):
                    return None
                batch = None if self._mode == "max_size" else self._begin_anew(place)
            row[place] = batch
        return row

    def _places(self) -> Sequence[int]:
        """The loaders in the order in which a row asks them. If the length is not known, those that may end the pass
        come first, so that no batch of the others is wasted.
        """
        places = range(len(self._pairs))
        if self._rows is not None:
            return places
        if self._mode == "min_size":
            return sorted(places, key=lambda place: self._said[place])
        return sorted(places, key=self._has_ended)

    def _begin_anew(self, place: int) -> Any:
        if (batch := self._first(place)) is not END:
            return batch
        key, loader = self._pairs[place]
        raise ValueError(
            f'CombinedLoader begins the loader {key!r} ({type(loader).__name__}) anew (mode "max_size_cycle"), but it '
            "gave no batch: it is empty, or an iterator, which can be gone through only once"
        )

    def _next(self, place: int) -> Any:
        """A loader's next batch, of its first pass if none is begun; END if the pass is over."""
        iterator = self._iterators[place]
        return self._first(place) if iterator is None else next(iterator, END)

    def _first(self, place: int) -> Any:
        """Begins a pass over a loader and gives its first batch; END if there is none.

        What that draws was drawn already where the run that is gone on with had read this row ahead.
        """
        host, self._hosts[place] = self._hosts[place], None
        if self._row > 0:
            begun_at = self._begun_at[place]
            self._before[place] = {
                "begun": self._iterators[place] is not None,
                "begun_at": begun_at,
                "pass": self._passes[place].state_dict(max(0, self._row - begun_at)),
                "host": host_state() if host is None else host,
            }
        self._begun_at[place] = self._row
        with nullcontext() if host is None else Aside():
            if host is not None:
                set_host_state(host)
            iterator = self._iterators[place] = self._passes[place].begin()
            return next(iterator, END)
