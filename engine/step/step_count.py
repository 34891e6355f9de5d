"""How many optimizer steps a run will make, counted before it makes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from leyden.engine.data.pass_length import known_length
from leyden.engine.step.slots import Tail

if TYPE_CHECKING:
    from leyden.engine.engine import Engine
    from leyden.engine.step.update import Update


@dataclass(frozen=True)
class RunArguments:
    """What `run` was called with."""

    data: Iterable[Any] | None = None
    max_epochs: int | None = None
    max_iters: int | None = None
    epoch_length: int | None = None
    length: int | None = None
    """Batches in a pass over the data as it is dealt and limited, once that is known."""


AS_ASKED = RunArguments()


def completed(engine: Engine[Any, Any], wish: RunArguments = AS_ASKED) -> RunArguments:
    """What is wished, completed by the run that is being set up or goes on, by the state, and by one epoch."""
    asked, state, fixed = engine.asked, engine.state, engine._limits.epoch_length
    limits = [(each.max_epochs, each.max_iters) for each in (wish, asked, state)]
    max_epochs, max_iters = next((limit for limit in limits if limit != (None, None)), (1, None))
    data = asked.data if wish.data is None else wish.data
    length = asked.length if data is asked.data else None
    return RunArguments(data, max_epochs, max_iters, wish.epoch_length or asked.epoch_length or fixed, length)


def planned_steps(engine: Engine[Any, Any], asked: RunArguments, update: Update) -> int | None:
    """Optimizer steps of one update in a run from the beginning; None where nobody knows before.

    Each batch is taken to go backward once, and no step to be skipped.
    """
    limit = asked.max_iters
    epochs = count(1) if limit is not None else range(1, (asked.max_epochs or 1) + 1)
    found = _steps_in(epochs, engine, asked, update)
    return None if found is None else found[0] + (found[1] > 0)


def _steps_in(
    epochs: Iterable[int], engine: Engine[Any, Any], asked: RunArguments, update: Update
) -> tuple[int, int] | None:
    """Steps in these epochs, and batches that the last window still wants."""
    if not update.slots.one_pass:
        return None
    limit, state, now = asked.max_iters, engine.state, engine.state.epoch
    iterations = steps = open_still = 0
    try:
        for state.epoch in epochs:  # by which some handlers say how long it is, and how many batches make a step
            batches = _length(engine, asked) or limit
            if not batches:
                return None
            batches = batches if limit is None else min(batches, limit - iterations)
            done, open_still = _steps_of_epoch(update, batches, open_still)
            steps += done
            iterations += batches
            if iterations == limit:
                break
    finally:
        state.epoch = now
    return steps, open_still


@dataclass(frozen=True)
class Stand:
    """Where a run stands: whole epochs that are done, and batches of the next one, of so many."""

    epochs: int
    batches: int = 0
    length: int = 1

    @classmethod
    def of(cls, engine: Engine[Any, Any]) -> Stand:
        state = engine.state
        done = state.iteration - engine.cursor.epoch_start
        if engine.cursor.epoch_open and state.epoch_length is not None and done < state.epoch_length:
            return cls(state.epoch - 1, done, state.epoch_length)
        return cls(state.epoch)


def steps_to_come(engine: Engine[Any, Any], update: Update, stand: Stand) -> int | None:
    """Optimizer steps from there to the end of the run, in batches as they are now; None where nobody knows, or where
    the run ends after so many iterations, whatever their size.
    """
    asked = completed(engine)
    whole = planned_steps(engine, asked, update)
    before = _steps_in(range(1, stand.epochs + 1), engine, asked, update)
    if whole is None or before is None or asked.max_iters is not None:
        return None
    steps, open_still = before
    if stand.batches:
        state, now = engine.state, engine.state.epoch
        state.epoch = stand.epochs + 1
        try:
            batches = stand.batches * (_length(engine, asked) or 0) // stand.length
            size = 1 if update.slots.window is None else update.slots.window()
        finally:
            state.epoch = now
        if batches >= open_still:
            steps += (open_still > 0) + (batches - open_still) // size
    return whole - steps


def _length(engine: Engine[Any, Any], asked: RunArguments) -> int | None:
    """Batches of the epoch that the state says."""
    if asked.epoch_length is not None or asked.data is None:
        return asked.epoch_length
    if asked.length is not None and not engine.data_setup.varies:
        return asked.length
    return known_length(engine.data_setup(asked.data))


def _steps_of_epoch(update: Update, batches: int, open_still: int) -> tuple[int, int]:
    """Steps in an epoch, and batches that its last window still wants; `open_still`: those of the epoch before."""
    slots = update.slots
    size = 1 if slots.window is None else slots.window()
    if open_still > batches:
        return 0, open_still - batches
    carried = int(open_still > 0)
    whole, rest = divmod(batches - open_still, size)
    steps = carried + whole
    if not rest or slots.tail is Tail.DROP:
        return steps, 0
    return (steps + 1, 0) if slots.tail is Tail.STEP else (steps, size - rest)


def total_steps(engine: Engine[Any, Any], wish: RunArguments, update: str | None) -> int:
    """See `Engine.total_steps`."""
    engine._limits.check(wish.max_epochs, wish.max_iters, wish.epoch_length)
    asked = completed(engine, wish)
    if not engine.updates:
        raise ValueError("this engine has no Update, which would count its optimizer steps; make one before")
    if update is None and len(engine.updates) > 1:
        raise ValueError(f"this engine has several updates; name the one that is meant, update=: {[*engine.updates]}")
    name = next(iter(engine.updates)) if update is None else update
    if name not in engine.updates:
        raise ValueError(f"the engine has no update {name!r}; it has: {', '.join(engine.updates)}")
    if asked.length is None and asked.data is not None and asked.epoch_length is None and not engine.data_setup.varies:
        asked = replace(asked, length=known_length(engine.data_setup(asked.data)))
    steps = planned_steps(engine, asked, engine.updates[name])
    if steps is None:
        reason = (
            "its batches have several optimizer steps each (TruncatedBPTT)"
            if not engine.updates[name].slots.one_pass
            else f"the data ({type(asked.data).__name__}) does not say how many batches a pass has; give epoch_length="
        )
        raise ValueError(f"the number of optimizer steps is not known before the run: {reason}")
    return steps
