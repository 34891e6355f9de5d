"""From an engine and all that is attached to it to one tree of data, and back. README.md shows the tree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from leyden import distributed as dist
from leyden.engine import Engine, GradientScaler
from leyden.engine.randomness import rng_state, set_rng_state
from leyden.engine.resume import is_dealt_to_this_rank, shares_needed
from leyden.engine.step import parameters_by_name
from leyden.handlers.checkpoint.errors import CheckpointDamagedError
from leyden.handlers.checkpoint.files.contents import CheckpointContents
from leyden.handlers.checkpoint.files.tensor_info import TensorInfo
from leyden.handlers.checkpoint.state import model_state

logger = logging.getLogger(__name__)


class Stateful(Protocol):
    """What `extra` takes."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


def collect(engine: Engine[Any, Any], extra: Mapping[str, Stateful], script: Mapping[str, Any]) -> dict[str, Any]:
    """All that all ranks share; the tensors are the live ones, not copies. `script`: what the script says."""
    updates = engine.updates
    return {
        "models": {name: _each(update.modules, model_state.model_state) for name, update in updates.items()},
        "versions": {name: _each(update.modules, model_state.model_versions) for name, update in updates.items()},
        "optimizers": {name: model_state.optimizer_state(update) for name, update in updates.items()},
        "scalers": {name: scaler.state_dict() for name, scaler in _scalers(engine).items()},
        "engine": engine.state_dict(own=False),
        "extra": {name: item.state_dict() for name, item in extra.items()},
        "script": dict(script),
    }


def collect_own(engine: Engine[Any, Any]) -> dict[str, Any]:
    """What this rank has for itself; the tensors may be the live ones."""
    return {"rng": rng_state(), "engine": engine.rank_state_dict()}


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory, from which nothing has been put back yet. own: what ranks had for themselves; of as many
    as there are now that of this rank alone, of another number what this rank needs, and {} for the rest.
    """

    contents: CheckpointContents
    state: Mapping[str, Any]
    own: Sequence[Mapping[str, Any] | None]


def load(engine: Engine[Any, Any], extra: Mapping[str, Stateful], contents: CheckpointContents) -> Loaded:
    """Reads what this rank needs, and no more.

    Raises ValueError if the checkpoint is of other models, optimizers or extras, and CheckpointDamagedError if what is
    read is not as it was written.
    """
    if problems := _problems(engine, extra, contents.outline):
        raise ValueError(f"{contents.path} does not fit what is to go on from it:\n  " + "\n  ".join(problems))
    return Loaded(contents, contents.load(_sharded(engine, contents.outline)), _load_own(engine, contents))


def put_back(engine: Engine[Any, Any], extra: Mapping[str, Stateful], loaded: Loaded) -> None:
    """Puts everything back where it was."""
    try:
        _put_back(engine, extra, loaded.state)
        _put_back_own(engine, loaded)
    except Exception as error:  # of whoever takes a state
        error.add_note(f"in going on from {loaded.contents.path}")
        raise


def _put_back(engine: Engine[Any, Any], extra: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
    for name, update in engine.updates.items():
        for key, module in update.modules.items():
            model_state.load_model(module, state["models"][name][key], state["versions"][name][key])
        model_state.load_optimizer(update, state["optimizers"][name])
    for name, scaler in _scalers(engine).items():
        if name in state["scalers"]:
            scaler.load_state_dict(state["scalers"][name])
    for name, item in extra.items():
        item.load_state_dict(state["extra"][name])
    engine.load_state_dict(state["engine"])


def _load_own(engine: Engine[Any, Any], contents: CheckpointContents) -> list[Mapping[str, Any] | None]:
    saved = contents.manifest.world_size
    if (same := _counterpart(contents)) is not None:
        return [contents.load_rank(same) if place == same else None for place in range(saved)]
    logger.info(
        "%s was written by %d ranks, and there are %d now: random numbers go on from this run's own seeds",
        contents.path,
        saved,
        dist.world_size(),
    )
    shares = [contents.mesh.rank_at(share) for share in range(contents.mesh.size("data"))]
    sharded = any(dist.is_sharded(p) for update in engine.updates.values() for p in update.trainable())
    own: list[Mapping[str, Any] | None] = [{}] * saved
    for share in shares_needed(contents.own, len(shares), sharded=sharded):
        gradients = sharded or is_dealt_to_this_rank(share)
        own[shares[share]] = contents.load_rank(shares[share], gradients=gradients)
    return own


def _counterpart(contents: CheckpointContents) -> int | None:
    """Which of the ranks that were saved had this rank's share of the data; None if they were dealt in another way."""
    mesh = contents.outline["engine"].get("mesh")
    rank: int | None = dist.mesh().counterpart(mesh or {"replicate": contents.manifest.world_size})
    return rank


def _put_back_own(engine: Engine[Any, Any], loaded: Loaded) -> None:
    if (same := _counterpart(loaded.contents)) is not None:
        own = loaded.own[same]
        assert own is not None
        try:
            set_rng_state(own["rng"])
        except (TypeError, ValueError, KeyError, OverflowError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise CheckpointDamagedError(f"ranks/{same}/rng is no state of random numbers: {reason}") from error
    states = [None if own is None else own.get("engine", {}) for own in loaded.own]
    if any(states):  # schema 1 had nothing but random numbers there
        engine.load_rank_state_dicts(states, loaded.contents.outline["engine"].get("mesh"))


def _problems(engine: Engine[Any, Any], extra: Mapping[str, Stateful], saved: Mapping[str, Any]) -> list[str]:
    models = saved["models"]
    problems = _difference("update", engine.updates, models)
    for name, update in engine.updates.items():
        if name not in models:
            continue
        differ = _difference(f"module of update {name!r}", update.modules, models[name])
        problems += differ
        if differ:
            continue
        for key, module in update.modules.items():
            what = f"{type(model_state.unwrapped(module)).__name__} of update {name!r}"
            problems += model_state.model_problems(module, models[name][key], what)
            problems += model_state.dtype_problems(module, models[name][key], what)
        problems += model_state.optimizer_problems(update, saved["optimizers"][name])
    return problems + _difference("extra", extra, saved["extra"])


def _difference(what: str, present: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    if present.keys() == saved.keys():
        return []
    here, there = (", ".join(map(repr, names)) or "none" for names in (present, saved))
    return [f"{what}: the checkpoint has {there}; the run has {here}"]


def _sharded(engine: Engine[Any, Any], saved: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Live tensors that are spread over ranks, by the name of the saved tensor that is to be spread in the same way."""
    like: dict[str, torch.Tensor] = {}
    for name, update in engine.updates.items():
        for key, module in update.modules.items():
            _match(model_state.model_state(module), saved["models"][name][key], like)
        parameters = model_state.parameters_by_key(update)
        for place, entries in saved["optimizers"][name]["state"].items():
            _match(dict.fromkeys(entries, parameters.get(place)), entries, like)
        gradients = saved["engine"].get("updates", {}).get(name, {}).get("gradients", {})
        _match(parameters_by_name(update), gradients, like)
    if like:  # averages of what is sharded are sharded, too
        states, live = saved["engine"].get("handlers", {}), engine.handler_states()
        for label, owner in engine.state_owners(states, saved["engine"].get("handler_marks")).items():
            _match(live.get(owner), states.get(label), like)
    return like


def _match(live: Any, saved: Any, like: dict[str, torch.Tensor]) -> None:
    """Finds the tensors that are shards of a whole in live data, and what is saved in their place."""
    if isinstance(saved, TensorInfo):
        if isinstance(live, torch.Tensor) and dist.is_sharded(live) and saved.shape == tuple(live.shape):
            like[saved.name] = live
    elif isinstance(saved, Mapping) and isinstance(live, Mapping):
        for key, item in saved.items():
            _match(live.get(key), item, like)
    elif isinstance(saved, list | tuple) and isinstance(live, list | tuple):
        for mine, item in zip(live, saved, strict=False):
            _match(mine, item, like)


def _scalers(engine: Engine[Any, Any]) -> dict[str, GradientScaler]:
    return {name: scaler for name, update in engine.updates.items() if (scaler := update.slots.scaler) is not None}


def _each(modules: Mapping[str, torch.nn.Module], function: Any) -> dict[str, Any]:
    return {key: function(module) for key, module in modules.items()}
