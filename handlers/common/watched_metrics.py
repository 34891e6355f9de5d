"""The metric that a handler watches by name: checked before the first step, and the same on all ranks."""

from __future__ import annotations

from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine, Update
from leyden.engine.values import WatchedMetric
from leyden.handlers.evaluating import Evaluate
from leyden.metrics import MetricGroup


def require_number_of(engine: Engine[Any, Any], name: str, who: str) -> None:
    """Raises ValueError if no metric of that name will come up, and TypeError for one whose values are mappings, where
    its keys are known; `who` is the handler that watches it.
    """
    engine.require_metric(name, who)
    if keys := _keys(engine, name):
        prefix = name[: len(name) - len(keys[0])]
        listed = ", ".join(f'"{prefix}{key}"' for key in keys[1:])
        raise TypeError(f'{who} ranks by "{name}", which is no number, but a mapping; take one of its own: {listed}')


def value_of_ranks(engine: Engine[Any, Any], watch: WatchedMetric, update: Update | None) -> tuple[bool, Any]:
    """Whether the metric has a new value, and which, for a change of the update's training: of ranks that train one
    model, which may each have set a value of their own, that of rank 0. Those ranks make it together.
    """
    is_new = watch.is_new(engine.state.metrics)
    seen = is_new, engine.state.metrics[watch.name] if is_new else None
    return seen if update is not None and update.independent else dist.broadcast_object(seen)


def _keys(engine: Engine[Any, Any], name: str) -> tuple[str, ...]:
    """The metric's name on the engine that measures it, and those of its value's items; empty where it is no
    mapping, or that is not known.
    """
    for group in engine.find_handlers(MetricGroup):
        if name in group.metrics and group.metrics[name].result_keys:
            return tuple(group.metrics[name].names(name))
    for each in engine.find_handlers(Evaluate):
        if name.startswith(each.prefix) and (keys := _keys(each.evaluator, name.removeprefix(each.prefix))):
            return keys
    return ()
