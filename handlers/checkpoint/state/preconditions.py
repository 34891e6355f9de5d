"""What is asked before anything is saved: can the states be stored, and have all ranks the same models?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.engine.values import leaves_by_name
from leyden.handlers.checkpoint.files.codec import encode
from leyden.handlers.checkpoint.shared_outcomes import agree, all_alike
from leyden.handlers.checkpoint.state.training_state import Stateful
from leyden.handlers.common.digests import digest_of

logger = logging.getLogger(__name__)


def require_same_models(models: Mapping[str, Any], failure: Exception | None) -> None:
    """Every rank calls it, before a save. `models`: what all ranks are to have alike, of which one rank's is saved;
    `failure`: what went wrong on this rank before, which is then raised, and told to the others.

    Raises ValueError, on all ranks, where models differ.
    """
    if dist.world_size() == 1:
        if failure is not None:
            raise failure
        return
    parts = _parts_of(models)
    if all_alike(digest_of(sorted(parts.items())), failure):
        return
    first = dist.broadcast_object(parts)
    difference = _difference(first, parts)
    agree(None if difference is None else ValueError(difference))
    raise AssertionError("the digests differ, and the parts do not")


def _parts_of(models: Mapping[str, Any]) -> dict[str, str]:
    """Shape (over all ranks) and dtype of each tensor of nested states, by its place."""
    return {
        place: f"{list(value.shape)} of {value.dtype}"
        if isinstance(value, torch.Tensor) and not is_lazy(value)
        else type(value).__name__
        for place, value in leaves_by_name(models)
    }


def _difference(first: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    for place in sorted(first.keys() | other.keys()):
        here, there = (each.get(place, "not there") for each in (first, other))
        if here != there:
            return (
                f"the ranks have different models, of which a checkpoint would hold those of rank 0 alone: "
                f"{place} is {here} on rank 0, and {there} on rank {dist.rank()}. Give all ranks the same models; what "
                "a rank has for itself is the rank_state_dict() of a handler"
            )
    return None


def require_storable(engine: Engine[Any, Any], extra: Mapping[str, Stateful]) -> None:
    """Raises TypeError, with the place, on all ranks, if one of them has a state that is no data: of handlers, of
    `extra`, of the state's own keys. Every rank calls it.
    """
    failure: Exception | None = None
    user = {name: vars(engine.state)[name] for name in engine.state_dict_user_keys if name in vars(engine.state)}
    tree = {
        "engine": {"user": user, "handlers": _states(engine.labelled())},
        "extra": _states(extra),
    }
    try:
        encode(tree)
    except TypeError as error:
        failure = error
    all_alike(0, failure)


def _states(items: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, item in items.items():
        if hasattr(item, "state_dict"):
            try:
                found[name] = item.state_dict()
            except Exception as error:  # it may have none before its first epoch; the save will tell what it lacks
                logger.debug("the state of %s is not looked at before the first step: %s", name, error)
    return found
