"""What each rank of an engine has for itself, as plain data, and back: the gradients of an open window, what its
metrics have seen, an evaluation that was stopped halfway.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from leyden import distributed as dist
from leyden.engine.data.held import Held
from leyden.engine.events.registry import PerRank
from leyden.engine.stopping.stops import Stop
from leyden.engine.values.nested import map_leaves
from leyden.engine.values.plain_data import given, kept

if TYPE_CHECKING:
    from leyden.engine.engine import Engine


def rank_snapshot(engine: Engine[Any, Any]) -> dict[str, Any]:
    """What this rank has for itself; the tensors may be the live ones."""
    updates = {name: update.rank_state_dict() for name, update in engine.updates.items()}
    handlers = {name: each.rank_state_dict() for name, each in engine.labelled().items() if isinstance(each, PerRank)}
    own: dict[str, Any] = {
        "updates": {name: state for name, state in updates.items() if state},
        "handlers": {name: state for name, state in handlers.items() if state},
        "metrics": dict(engine.state.metrics) if dist.world_size() > 1 else {},
        "data": engine.run_data.state_dict(),
    }
    if engine.run_data.held is not None:
        own["held"] = engine.run_data.held.state_dict()
    if engine.suspended is not None:
        state = engine.state
        own["suspended"] = {
            "wishes": sorted(stop.value for stop in engine.suspended.requests),
            "times": dict(state.times),
            "output": _kept(state.output, "output"),
            "batch": _kept(state.batch, "batch"),
        }
    return own


def restore_ranks(engine: Engine[Any, Any], states: Sequence[Any], mesh: Mapping[str, int] | None = None) -> None:
    """Goes on from what each rank had for itself. `states` by rank: where the data are dealt to as many ranks as they
    were, only that of the rank with this one's share is looked at; else they are shared out, and of those that this
    rank does not take it may have {} (`shares_needed`). `mesh`: the sizes of that of the run which had them.
    """
    states = _by_share(states, mesh or {"replicate": len(states)})
    rank = dist.data_rank()
    same = len(states) == dist.data_size()
    mine = states[rank] if rank < len(states) else states[0]

    def each_of(part: str, name: str) -> list[Any]:
        return [None if state is None else state.get(part, {}).get(name, {}) for state in states]

    there = [state for state in states if state is not None]
    for name in dict.fromkeys(name for state in there for name in state.get("updates", {})):
        if name in engine.updates:
            engine.updates[name].load_rank_state_dicts(each_of("updates", name))
    names = [name for state in there for name in state.get("handlers", {})]
    handlers = {name: each_of("handlers", name) for name in dict.fromkeys(names)}
    engine.load_handler_rank_states(handlers, [None if state is None else {} for state in states])
    # Of another number of ranks, rank 0's tells what all of them had taken of their common order.
    if data := ((mine if same else states[0]) or {}).get("data"):
        engine.run_data.load_state_dict(data)
    if same:
        if held := mine.get("held"):
            engine.run_data.held = Held.of(held, engine.device)
        times_set = dict(engine.state.metrics.times_set)
        engine.state.metrics.update(mine.get("metrics", {}))
        engine.state.metrics.times_set = times_set
        engine.state.metrics.set_at.clear()
    if engine.suspended is not None and "suspended" in mine:
        saved = mine["suspended"]
        requests = frozenset(map(Stop, saved["wishes"]))  # the name that it has in checkpoints
        engine.suspended = dataclasses.replace(engine.suspended, requests=requests)
        engine.state.times.update(saved["times"])
        engine.state.output = given(saved["output"], engine.device)
        engine.state.batch = given(saved["batch"], engine.device)


def _by_share(states: Sequence[Any], mesh: Mapping[str, int]) -> list[Any]:
    """The states of one rank for each share of the data, in their order."""
    here = dist.mesh()
    if (mine := here.counterpart(mesh)) is not None:
        return [states[mine] if share == here.rank("data") else None for share in range(here.size("data"))]
    saved = dist.Mesh(mesh)
    return [states[saved.rank_at(share)] for share in range(saved.size("data"))]


def of_this_rank(own: Mapping[str, Any] | None, mesh: Mapping[str, int] | None) -> list[Any] | None:
    """The states by rank, where that of an engine has one; of another rank's, or another mesh's, empty ones."""
    if own is None:
        return None
    rank, ranks = dist.rank(), dist.world_size()
    same_place = dist.mesh().counterpart(mesh or {"replicate": ranks}) == rank
    if (own["rank"], own["ranks"]) == (rank, ranks) and same_place:
        return [own["state"] if place == rank else None for place in range(ranks)]
    if own["state"]["updates"] or own["state"]["handlers"]:
        # Taken over, the part of another rank would count twice, and this rank's not at all.
        warnings.warn(
            f"rank {rank} of {ranks} was given the state of rank {own['rank']} of {own['ranks']}, and leaves out what "
            "that rank had for itself: gradients of an open window, what its metrics had seen of the epoch. Let each "
            "rank load its own state_dict(), or use Checkpoint",
            stacklevel=4,
        )
    return [{} for _ in range(dist.Mesh(mesh).size("world") if mesh else ranks)]


def copied(data: Any) -> Any:
    """The same nested data with tensors of its own."""
    return map_leaves(data, _copied_leaf)


def _copied_leaf(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else copy.copy(leaf)


def _kept(value: Any, name: str) -> dict[str, Any]:
    """The output or the batch of the iteration whose handlers are not done, if it is plain data."""
    try:
        return kept(value)
    except TypeError as error:
        warnings.warn(
            f"state.{name} is not saved: {error}. Handlers of this iteration that are still to run will find None "
            "there when another process goes on",
            stacklevel=2,
        )
        return kept(None)
