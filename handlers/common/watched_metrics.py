"""The metric that a handler watches by name: checked before the first step, and the same on all ranks."""

from __future__ import annotations

import warnings
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine, Events, Update
from leyden.engine.values import WatchedMetric
from leyden.handlers.evaluating import Evaluate
from leyden.metrics import Metric, MetricGroup


def watch_number(engine: Engine[Any, Any], name: str, who: str) -> None:
    """Has the engine check, as a run starts, that a metric of that name will come up and may be a number, and tell, as
    it ends, if none came up; `who` is the handler that watches it.
    """
    engine.add_event_handler(Events.STARTED, require_number_of, engine, name, who)
    engine.add_event_handler(Events.COMPLETED, tell_if_missing, engine, name, who)


def tell_if_missing(engine: Engine[Any, Any], name: str, who: str) -> None:
    """Warns if a run that came to its end leaves no value of that name."""
    state = engine.state
    whole = state.max_epochs is not None and state.epoch >= state.max_epochs
    if dist.rank() == 0 and whole and name not in state.metrics:
        warnings.warn(
            f'{who} watches "{name}", which has no value as the run ends after epoch {state.epoch}: look at when it is '
            "measured (usage=, every= of Evaluate), and whether any data counted",
            stacklevel=2,
        )


def require_number_of(engine: Engine[Any, Any], name: str, who: str) -> None:
    """Raises ValueError if no metric of that name will come up, and TypeError for one whose values are known to be no
    numbers; `who` is the handler that watches it.
    """
    engine.require_metric(name, who)
    found = _measured(engine, name)
    if found is None:
        return
    metric, own_name = found
    if metric.result_keys:
        prefix = name.removesuffix(own_name)
        listed = ", ".join(f'"{prefix}{item}"' for item in metric.names(own_name)[1:])
        raise TypeError(f'{who} ranks by "{name}", which is no number, but a mapping; take one of its own: {listed}')
    if metric.number_instead:
        raise TypeError(
            f'{who} ranks by "{name}", a {metric.kind} of which each value is several numbers; attach one that is '
            f"a single number, such as {metric.number_instead}"
        )


def value_of_ranks(engine: Engine[Any, Any], watch: WatchedMetric, update: Update | None) -> tuple[bool, Any]:
    """Whether the metric has a new value, and which, for a change of the update's training: of ranks that train one
    model, which may each have set a value of their own, that of rank 0. Those ranks make it together.
    """
    is_new = watch.is_new(engine.state.metrics)
    seen = is_new, engine.state.metrics[watch.name] if is_new else None
    return seen if update is not None and update.independent else dist.broadcast_object(seen)


def _measured(engine: Engine[Any, Any], name: str) -> tuple[Metric, str] | None:
    """The metric with a value of that name, and its name on the engine that measures it; None where nobody knows."""
    for group in engine.find_handlers(MetricGroup):
        if name in group.metrics:
            return group.metrics[name], name
    for each in engine.find_handlers(Evaluate):
        if name.startswith(each.prefix) and (found := _measured(each.evaluator, name.removeprefix(each.prefix))):
            return found
    return None
