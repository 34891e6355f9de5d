"""One pass over data: how it is begun, and begun again in another process at the batch it had come to.

A loader with random access draws the order of its pass again, from the generators as they were when it began, and
loads none of the batches that were used. One with `state_dict` and `load_state_dict` goes on from its own state. Of
anything else the batches are read again, which a warning tells. Afterwards all generators are as they were at the save.

What worker processes draw for their samples is not known here: it is the same after a resume under `Reproducible`, or
where a dataset has a state that tells of it. Of batches that are read ahead in this process (DeviceTransfer) the
samples' own draws came a batch earlier than those of the steps; there, too, Reproducible makes that no difference.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from leyden import distributed as dist
from leyden.distributed.compat import begun_pass, is_over
from leyden.engine.data.draw_record import DrawRecord, draws_all_along
from leyden.engine.data.ended_workers import ended_workers, staying_ended
from leyden.engine.data.index_order import (
    END,
    Drawn,
    begin_loader,
    keeps_workers,
    rest_of_order,
    start_anew,
    start_workers,
)
from leyden.engine.data.layers import DataLayer, KnowsItsPass, Rest
from leyden.engine.data.loader_parts import (
    batch_unit,
    has_indices,
    has_random_access,
    index_sampler,
    knows_its_place,
    ranks_of,
)
from leyden.engine.data.part_states import parts_state, set_parts_state
from leyden.engine.data.pass_beginning import beginning_of, noting_first
from leyden.engine.data.pass_length import SEQUENCE_TYPES, known_length
from leyden.engine.data.reading_past import by_index, comes_out_of_order, refuse_out_of_order, tell_of_reading
from leyden.engine.data.stateful_loaders import begins_at_its_end, finish
from leyden.engine.randomness.host import Aside, host_state, set_host_state


class DataPass:
    """The current pass over data. `state`: that of the run that is continued, if there is one."""

    def __init__(self, data: Any, state: Mapping[str, Any] | None = None) -> None:
        self.data = data
        self._layers: list[DataLayer] = []
        while isinstance(data, DataLayer):
            self._layers.append(data)
            data = data.inner_data()
        self._leaf: Any = data.apart() if isinstance(data, KnowsItsPass) else data
        self._dealt = ranks_of(data)
        for layer in self._layers:
            self._dealt *= layer.ranks
        self._state = state
        self._began: dict[str, Any] | None = None
        self._record: DrawRecord | None = None
        self._ended: dict[int, bool] = {}  # workers that had nothing left of the pass when it was gone on with
        self._known_left: int | None = None  # batches in the order of indices that was opened last
        # Where what was left of the pass was dealt anew: the items taken before, by all ranks, and after which batch.
        self._taken = self._since = 0
        self.left: int | None = None
        """Batches that were left when the pass was gone on with, if that is another number than one expects: what was
        left of it was dealt anew.
        """
        if state is not None:
            if isinstance(self._leaf, KnowsItsPass):
                if "inner" in state:
                    self._leaf.load_pass_state(state["inner"])
            else:
                set_parts_state(self._leaf, state.get("now", {}))

    # -- its beginning ---------------------------------------------------------------------------------------

    def begin(self) -> Iterator[Any]:
        """Begins a new pass."""
        state, self._state = self._state, None
        self.end()
        leaf = self._leaf
        if isinstance(leaf, KnowsItsPass):
            return self._through_layers(Rest(iter(self._leaf), None), 0).iterator
        if state is not None:
            self._make_as_it_was(state)
        self._began = beginning_of(leaf)
        if self._records():
            iterator = self._through_layers(Rest(self._open(skip=0), None), 0).iterator
        else:
            iterator = iter(self.data)
        return iterator if self._began is None else noting_first(iterator, self._began, host_state())

    def _records(self) -> bool:
        leaf = self._leaf
        return has_random_access(leaf) and not knows_its_place(leaf) and draws_all_along(index_sampler(leaf))

    def _make_as_it_was(self, state: Mapping[str, Any]) -> None:
        """Lets the next pass begin as in the continued run, which had been through the data before."""
        leaf = self._leaf
        if "loader" in state and knows_its_place(leaf):
            self._load_for_the_next(state)
        else:
            self._have_workers(started=state.get("warm", False))

    def _load_for_the_next(self, state: Mapping[str, Any]) -> None:
        """Brings a loader with a state of its own to where its next pass begins."""
        leaf = self._leaf
        leaf.load_state_dict(state["loader"])
        if isinstance(leaf, DataLoader):
            with Aside(), staying_ended(leaf, _ended(leaf, state)):
                finish(leaf, state["loader"])
            set_parts_state(leaf, state.get("now", {}), replayed=True)  # generators of its own were drawn from

    def _have_workers(self, *, started: bool) -> None:
        if isinstance(self._leaf, DataLoader):
            (start_workers if started else start_anew)(self._leaf)

    def end(self) -> None:
        """Notes that the pass is over and the next has not begun."""
        self._began = self._record = self.left = None
        self._ended = {}
        self._taken = self._since = 0
        if isinstance(self._leaf, KnowsItsPass):
            self._leaf.end_pass()
            self._state = None
        elif self._state is not None:  # of a run that was stopped between two passes; the one before is over
            self._state = {key: value for key, value in self._state.items() if key != "began"}

    # -- its middle ------------------------------------------------------------------------------------------

    def go_on(self, position: int) -> Iterator[Any]:
        """Continues a pass of which `position` batches have been used."""
        state = self._state
        if isinstance(self._leaf, KnowsItsPass):
            if position == 0 and (state is None or "inner" not in state):
                return self.begin()
            self._state = None
            rest = self._through_layers(self._leaf.go_on_at(position), position)
            self.left = rest.left if self._leaf.dealt_anew else None
            return rest.iterator
        if position == 0 and (state is None or "began" not in state):
            return self.begin()
        self._state = None
        rest = self._through_layers(self._rest(state or self._fresh_state(), position), position)
        self.left = rest.left if self._taken > 0 else None
        if position > 0 or self._began is None:
            return rest.iterator
        return noting_first(rest.iterator, self._began, None)

    def _fresh_state(self) -> dict[str, Any]:
        return {"unit": batch_unit(self._leaf), "ranks": self._dealt, "taken": 0, "since": 0}

    def _is_alike(self, state: Mapping[str, Any]) -> bool:
        return (state["unit"], state["ranks"]) == (batch_unit(self._leaf), self._dealt)

    def _through_layers(self, rest: Rest, position: int) -> Rest:
        for layer in reversed(self._layers):
            rest = layer.go_on(rest, position)
        return rest

    def _rest(self, state: Mapping[str, Any], position: int) -> Rest:
        leaf = self._leaf
        if position > 0:
            refuse_out_of_order(leaf, came_so=state.get("unordered", False))
        self._taken, self._since = state["taken"], state["since"]
        taken = self._taken + (position - self._since) * state["unit"] * state["ranks"]
        if not self._is_alike(state):
            self._taken, self._since = taken, position
        self._began = state.get("began")
        if isinstance(leaf, SEQUENCE_TYPES):
            return Rest(itertools.islice(leaf, taken, None), max(0, len(leaf) - taken))
        now = state.get("now", {})
        if self._began is None:
            return self._rest_of_leaf(state, position, taken)
        with Aside():
            set_parts_state(leaf, self._began["parts"])
            if not knows_its_place(leaf):
                self._have_workers(started=self._began.get("warm", False))
            set_host_state(self._began["host"])
            rest = self._rest_of_leaf(state, position, taken)
        set_parts_state(leaf, now, replayed=True)
        return rest

    def _rest_of_leaf(self, state: Mapping[str, Any], position: int, taken: int) -> Rest:
        leaf = self._leaf
        if isinstance(leaf, Iterator):
            return Rest(self._read_past(leaf, taken), None)
        theirs = "loader" in state and knows_its_place(leaf) and state.get("position") == position
        if theirs and (not has_random_access(leaf) or (self._taken == 0 and self._is_alike(state))):
            if is_over(state["loader"]):  # it would begin anew: ranks may agree to stop once a pass has met its end
                self._load_for_the_next(state)
                return Rest(iter(()), 0)
            self._ended = _ended(leaf, state)
            with staying_ended(leaf, self._ended):
                iterator = self._load(state["loader"])
            if begins_at_its_end(iterator):
                iterator = self._load(state["loader"])
            return Rest(iterator, _less(leaf, taken))
        if has_random_access(leaf):
            skip = position - self._since
            iterator = self._open(skip)
            return Rest(iterator, None if self._known_left is None else max(0, self._known_left - skip))
        if has_indices(leaf):
            return Rest(self._read_past(iter(leaf), self._of_this_rank(state, position)), _less(leaf, position))
        if getattr(type(leaf), "__iter__", Sequence.__iter__) is Sequence.__iter__:
            return Rest(by_index(leaf, taken), _less(leaf, taken))
        return Rest(self._read_past(iter(leaf), taken), _less(leaf, taken))

    def _read_past(self, iterator: Iterator[Any], number: int) -> Iterator[Any]:
        self._draw_as_at_first()
        if number > 0 and dist.rank() == 0:
            tell_of_reading(self._leaf, number)
        for _ in range(number):
            if next(iterator, END) is END:
                break
        return iterator

    def _draw_as_at_first(self) -> None:
        """Draws what the first batch draws from the generators as they were then."""
        if self._began is not None and "first" in self._began:
            set_host_state(self._began["first"])

    def _of_this_rank(self, state: Mapping[str, Any], position: int) -> int:
        """The number of batches that this rank has to read past in a loader with its own way of iterating."""
        if self._taken > 0 or not self._is_alike(state):
            raise ValueError(
                f"what is left of the epoch can't be dealt anew: {type(self._leaf).__name__} has an __iter__ of its "
                f"own, and the run was saved by {state['ranks']} ranks, but goes on with {self._dealt}. Go on with as "
                "many ranks, or leave __iter__ to torch's DataLoader"
            )
        return position

    def _load(self, state: Any) -> Iterator[Any]:
        """Continues the pass from the loader's own state."""
        leaf = self._leaf
        leaf.load_state_dict(state)
        began = self._began or {}
        if not isinstance(leaf, DataLoader) or not (began.get("warm") or ("first" in began and leaf.num_workers == 0)):
            return iter(leaf)
        generator = leaf.generator
        if began.get("warm") or generator is None:
            # The seed of workers was not drawn in this pass, as they were there already, or before what comes now.
            leaf.generator = torch.Generator()
        if leaf.num_workers == 0:
            self._draw_as_at_first()
        try:
            return iter(leaf)
        finally:
            leaf.generator = generator

    def _open(self, skip: int) -> Iterator[Any]:
        """Begins the loader's own pass past its first `skip` batches."""
        loader, began = self._leaf, self._began or {}
        order = index_sampler(loader) if self._taken == 0 else rest_of_order(loader, self._taken, began)
        self._known_left = known_length(order)
        records = self._taken == 0 and self._records()
        drawn: list[Drawn] = []

        def begin() -> Iterator[Any]:
            record = DrawRecord(began.get("draws", ())) if records else None
            drawn.append(Drawn(iter(order), skip, record))
            self._record = record
            return drawn[-1]

        iterator = begin_loader(loader, begin)
        self._draw_as_at_first()
        if self._taken > 0 and loader.num_workers == 0:
            drawn[-1].draw_ahead()  # of an order that was drawn already, from what the generators were then
        else:
            drawn[-1].skip()
        return iterator

    # -- saved -----------------------------------------------------------------------------------------------

    def state_dict(self, position: int) -> dict[str, Any]:
        """What the pass needs to go on after `position` batches, as plain data and tensors."""
        if self._state is not None:
            return dict(self._state)
        leaf = self._leaf
        if isinstance(leaf, KnowsItsPass):
            return {"position": position, "inner": leaf.pass_state(position)}
        state = self._fresh_state() | {"position": position, "taken": self._taken, "since": self._since}
        if self._began is not None:
            began = dict(self._began)
            if self._record is not None:
                began["draws"] = list(self._record.entries)
            state["began"] = began
        if not isinstance(leaf, (*SEQUENCE_TYPES, Iterator)) and (now := parts_state(leaf)):
            state["now"] = now
        if keeps_workers(leaf):
            state["warm"] = True
        if comes_out_of_order(leaf):
            state["unordered"] = True
        if knows_its_place(leaf) and not (isinstance(leaf, DataLoader) and begun_pass(leaf) is None):
            state["loader"] = self._outermost_with_state().state_dict()
            if self._ended:  # torchdata forgets it until they are asked
                state["ended"] = dict(self._ended)
        return state

    def _outermost_with_state(self) -> Any:
        # Where batches are read ahead, a layer knows the state of what was used.
        return next((each for each in self._layers if hasattr(each, "state_dict")), self._leaf)


def _ended(loader: Any, state: Mapping[str, Any]) -> dict[int, bool]:
    return {**state.get("ended", {}), **ended_workers(loader, state["loader"])}


def _less(data: Any, taken: int) -> int | None:
    length = known_length(data)
    return None if length is None else max(0, length - taken)
