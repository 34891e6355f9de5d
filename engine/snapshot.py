"""The state of an engine as plain data, and back."""

from __future__ import annotations

import copy
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from leyden.engine.feed import Cursor

if TYPE_CHECKING:
    from leyden.engine.engine import Engine

COUNTERS = ("epoch", "iteration", "step", "epoch_length", "max_epochs", "max_iters", "seed")


def snapshot(engine: Engine[Any, Any]) -> dict[str, Any]:
    """Counters, cursor, metrics, the user's keys, and the states of updates and handlers."""
    state = {name: getattr(engine.state, name) for name in COUNTERS}
    missing = [name for name in engine.state_dict_user_keys if name not in vars(engine.state)]
    if missing:
        raise ValueError(
            f"state_dict_user_keys names {missing}, but the state has: {', '.join(sorted(vars(engine.state)))}"
        )
    state["user"] = {name: copy.copy(getattr(engine.state, name)) for name in engine.state_dict_user_keys}
    state["metrics"] = dict(engine.state.metrics)
    state["cursor"] = asdict(engine.cursor)
    state["updates"] = {name: update.state_dict() for name, update in engine.updates.items()}
    state["handlers"] = {
        name: handler.state_dict() for name, handler in engine.handlers.items() if hasattr(handler, "state_dict")
    }
    return state


def restore(engine: Engine[Any, Any], state_dict: dict[str, Any]) -> None:
    """Puts such data into the engine, or the counters alone, as Ignite saves them. Raises ValueError for others."""
    if "iteration" not in state_dict and "epoch" not in state_dict:
        raise ValueError(
            f"this is not the state of an engine: it has {sorted(state_dict)}, but neither epoch nor iteration"
        )
    state = engine.state
    for name in COUNTERS:
        if name in state_dict:
            setattr(state, name, state_dict[name])
    length = state.epoch_length
    if "epoch" not in state_dict and length:
        state.epoch = state.iteration // length
    if "iteration" not in state_dict:
        if not length:
            raise ValueError("a state with an epoch and without an iteration needs the epoch_length")
        state.iteration = state.epoch * length
    state.metrics.update(state_dict.get("metrics", {}))
    for name, value in state_dict.get("user", {}).items():
        setattr(state, name, value)
    cursor = state_dict.get("cursor")
    if cursor is None:
        done = state.epoch * length if length else state.iteration
        opened = state.iteration > done
        state.epoch += opened
        engine.cursor = Cursor(epoch_open=opened, epoch_start=done, pass_start=done)
    else:
        engine.cursor = Cursor(**{field.name: cursor[field.name] for field in fields(Cursor)})
    for name, values in state_dict.get("updates", {}).items():
        if name not in engine.updates:
            raise ValueError(
                f"the state has an update {name!r}, but the engine has: {', '.join(engine.updates) or 'none'}"
            )
        engine.updates[name].load_state_dict(values)
    engine.load_handler_states(state_dict.get("handlers", {}))
