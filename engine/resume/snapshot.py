"""The state of an engine that all ranks share, as plain data, and back."""

from __future__ import annotations

import copy
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from leyden import distributed as dist
from leyden.engine.data.feed import Cursor
from leyden.engine.resume.suspension import Suspension

if TYPE_CHECKING:
    from leyden.engine.engine import Engine

STATE_COUNTERS = ("epoch", "iteration", "step", "epoch_length", "max_epochs", "max_iters", "seed")


def snapshot(engine: Engine[Any, Any], fixed_length: bool) -> dict[str, Any]:
    """Counters, cursor, metrics, the user's keys, and the states of updates and handlers."""
    state = {name: getattr(engine.state, name) for name in STATE_COUNTERS}
    missing = [name for name in engine.state_dict_user_keys if name not in vars(engine.state)]
    if missing:
        there = ", ".join(sorted(vars(engine.state)))
        raise ValueError(f"state_dict_user_keys names {missing}, but the state has: {there}")
    if dist.data_size() < dist.world_size():  # else each rank has a share of the data
        state["mesh"] = {name: size for name, size in dist.mesh().sizes.items() if size > 1}
    return state | {
        "epoch_length_fixed": fixed_length,
        "user": {name: copy.copy(getattr(engine.state, name)) for name in engine.state_dict_user_keys},
        "metrics": dict(engine.state.metrics),
        "times_set": dict(engine.state.metrics.times_set),
        "cursor": asdict(engine.cursor),
        "suspended": None if engine.suspended is None else engine.suspended.state_dict(),
        "updates": {name: update.state_dict() for name, update in engine.updates.items()},
        "handlers": engine.handler_states(),
        "handler_marks": engine.handler_marks(),
    }


def restore_snapshot(engine: Engine[Any, Any], state_dict: dict[str, Any]) -> bool:
    """Puts such data into the engine, or the counters alone, as Ignite saves them; True if its length was fixed.

    Raises ValueError for another mapping, or another engine's, before anything is changed.
    """
    counters = _counters(state_dict)
    cursor = _cursor(state_dict, counters)
    updates = state_dict.get("updates", {})
    for name in updates:
        if name not in engine.updates:
            there = ", ".join(engine.updates) or "none"
            raise ValueError(f"the state has an update {name!r}, but the engine has: {there}")
    for name, value in counters.items():
        setattr(engine.state, name, value)
    for name, value in state_dict.get("user", {}).items():
        setattr(engine.state, name, value)
    engine.state.metrics.update(state_dict.get("metrics", {}))
    engine.state.metrics.times_set.update(state_dict.get("times_set", {}))
    engine.state.metrics.set_at.clear()
    engine.cursor.take_over(cursor)
    suspended = state_dict.get("suspended")
    engine.suspended = None if suspended is None else Suspension.of(suspended)
    for name, values in updates.items():
        engine.updates[name].load_state_dict(values)
    engine.load_handler_states(state_dict.get("handlers", {}), state_dict.get("handler_marks"))
    return bool(state_dict.get("epoch_length_fixed", False))


def _counters(state_dict: dict[str, Any]) -> dict[str, Any]:
    counters = {name: state_dict[name] for name in STATE_COUNTERS if name in state_dict}
    length = counters.get("epoch_length")
    if "iteration" not in counters:
        if "epoch" not in counters:
            raise ValueError(
                f"this is not the state of an engine: it has {sorted(state_dict)}, but neither epoch nor iteration"
            )
        if not length:
            raise ValueError("a state with an epoch and without an iteration needs the epoch_length")
        counters["iteration"] = counters["epoch"] * length
    if "epoch" not in counters:
        counters["epoch"] = -(-counters["iteration"] // length) if length else 0
    return counters


def _cursor(state_dict: dict[str, Any], counters: dict[str, Any]) -> Cursor:
    if "cursor" in state_dict:
        saved = state_dict["cursor"]
        return Cursor(**{field.name: saved[field.name] for field in fields(Cursor) if field.name in saved})
    length, iteration = counters.get("epoch_length"), counters["iteration"]
    begun = iteration if not length else iteration - iteration % length
    if begun < iteration:
        return Cursor(epoch_open=True, epoch_start=begun, pass_start=begun)
    return Cursor(epoch_start=begun, pass_start=begun)
