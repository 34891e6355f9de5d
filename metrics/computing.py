"""The values of an engine's metrics: over all ranks or of this one, computed by all or by one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from leyden import distributed as dist
from leyden.engine.values import map_tensors
from leyden.metrics.errors import NotComputableError
from leyden.metrics.reduction import reduced_states
from leyden.metrics.states import StateValue

if TYPE_CHECKING:
    from leyden.metrics.base import Metric


def computed(metrics: Sequence[Metric], *, together: bool = True) -> dict[Metric, Any]:
    """The value of each metric, or the NotComputableError that says why there is none.

    `together`: over all ranks that see different data, which all call this; else of what this rank has.
    """
    together = together and dist.data_size() > 1
    alone = not together and not any(metric.carried for metric in metrics)
    states = [{} for _ in metrics] if alone else reduced_states(metrics, together=together)
    here = {
        metric: reduced
        for metric, reduced in zip(metrics, states, strict=True)
        if not (together and metric.on_rank_zero)
    }
    values = {metric: _value(metric, reduced) for metric, reduced in here.items()}
    if len(here) < len(metrics):
        values |= _by_first_rank(dict(zip(metrics, states, strict=True)), [m for m in metrics if m not in here])
    return values


def _value(metric: Metric, states: Mapping[str, StateValue]) -> Any:
    try:
        with metric.holding(states):
            metric.verify()
            return metric.compute()
    except NotComputableError as error:
        return error
    except Exception as error:
        here = "" if metric.updated() else "; this rank saw no data, but others did"
        error.add_note(f"raised as the {metric.kind} of the engine was computed{here}")
        raise


def _by_first_rank(states: Mapping[Metric, Mapping[str, StateValue]], metrics: Sequence[Metric]) -> dict[Metric, Any]:
    """What rank 0 of those that see different data computes, on the CPU; one broadcast for all of them.

    Raises what a metric raised there; on the other ranks a RuntimeError that says so.
    """
    values = dist.on_rank_zero(
        lambda: [map_tensors(_value(metric, states[metric]), torch.Tensor.cpu) for metric in metrics],
        over="data",
        failed="a metric that rank 0 computes for all failed there",
    )
    return dict(zip(metrics, values, strict=True))
