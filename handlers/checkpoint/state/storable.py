"""Whether the states that a checkpoint is to hold can be stored, asked before the first step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.handlers.checkpoint.files.codec import encode
from leyden.handlers.checkpoint.shared_outcomes import all_alike
from leyden.handlers.checkpoint.state.training_state import Stateful

logger = logging.getLogger(__name__)


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
    if dist.world_size() > 1:
        all_alike(0, failure)
    elif failure is not None:
        raise failure


def _states(items: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, item in items.items():
        if hasattr(item, "state_dict"):
            try:
                found[name] = item.state_dict()
            except Exception as error:  # it may have none before its first epoch; the save will tell what it lacks
                logger.debug("the state of %s is not looked at before the first step: %s", name, error)
    return found
