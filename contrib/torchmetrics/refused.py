"""Which metrics of torchmetrics can't be measured here, and why."""

from __future__ import annotations

from typing import Any

from leyden import distributed as dist
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


def refuse_on_ranks(node: Any) -> None:
    """Raises ValueError for one that torchmetrics can't put together from as many ranks as there are."""
    if dist.data_size() > 2 and any(each.__name__ == "NormalizedRootMeanSquaredError" for each in type(node).__mro__):
        raise ValueError(
            f"torchmetrics can't put a {type(node).__name__} together from more than two ranks, and here are "
            f"{dist.data_size()}: attach an EpochMetric(function), or a RootMeanSquaredError and what it is divided by"
        )
