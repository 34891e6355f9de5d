"""Which metrics of torchmetrics can't be measured here, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from leyden import distributed as dist
from leyden.engine.values import leaves_of
from leyden.metrics import Metric


def refuse_trackers(metric: Any) -> None:
    """Raises ValueError for a MetricTracker."""
    if any(each.__name__ == "MetricTracker" for each in type(metric).__mro__):
        raise ValueError(
            "a MetricTracker keeps values over epochs, which loggers and Checkpoint(best=...) do here; attach the "
            "metric that it tracks"
        )


def refuse(node: Any) -> None:
    """Raises ValueError for one that can't be measured as an engine measures, TypeError for arithmetic of torchmetrics
    with a metric of leyden, which would be a constant in it.
    """
    for operand in (getattr(node, "metric_a", None), getattr(node, "metric_b", None)):
        if isinstance(operand, Metric):
            raise TypeError(
                f"torchmetrics can't compute with a metric of leyden, {type(operand).__name__}; leyden's arithmetic "
                "takes those of both. It begins with leyden's, Accuracy() + MulticlassRecall(3), or is written "
                "MetricsLambda(operator.sub, MulticlassRecall(3), Accuracy())"
            )
    for option in ("process_group", "dist_sync_fn"):
        if getattr(node, option, None) is not None:
            raise ValueError(
                f"{type(node).__name__} has {option}=, a synchronisation of its own, but metrics of an engine "
                f"are reduced together, over the ranks that see different data; leave {option} out"
            )


def refuse_hidden(nodes: Iterable[Any]) -> None:
    """Raises ValueError for one that keeps others where torch does not find them."""
    known = {id(node): node for node in nodes}  # == between metrics makes another metric
    for node in known.values():
        for attribute, value in vars(node).items():
            if attribute in _OF_MODULES or not isinstance(value, list | tuple | dict):
                continue
            if hidden := [each for each in _metrics_in(value) if id(each) not in known]:
                raise ValueError(
                    f"{type(node).__name__} keeps a {type(hidden[0]).__name__} in {attribute}, a "
                    f"{type(value).__name__}, where torch does not find it: it would be neither moved to the device "
                    f"nor saved nor reduced over the ranks with the others; make {attribute} a torch.nn.ModuleList or "
                    "a torch.nn.ModuleDict"
                )


_OF_MODULES = frozenset(vars(torch.nn.Module()))


def _metrics_in(value: Any) -> Iterator[Any]:
    from torchmetrics import Metric

    for leaf in leaves_of(value):
        if isinstance(leaf, torch.nn.Module):
            yield from (each for each in leaf.modules() if isinstance(each, Metric))


def refuse_on_ranks(node: Any) -> None:
    """Raises ValueError for one that torchmetrics can't put together from as many ranks as there are."""
    if dist.data_size() > 2 and any(each.__name__ == "NormalizedRootMeanSquaredError" for each in type(node).__mro__):
        raise ValueError(
            f"torchmetrics can't put a {type(node).__name__} together from more than two ranks, and here are "
            f"{dist.data_size()}: attach an EpochMetric(function), or a RootMeanSquaredError and what it is divided by"
        )
