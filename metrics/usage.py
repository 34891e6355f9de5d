"""Ignite's names for when a metric is reset and computed (`attach(..., usage=)`), and those that leyden supports."""

from __future__ import annotations

from typing import Any, ClassVar


class MetricUsage:
    """Base of the usages; `usage_name` is its name as text."""

    usage_name: ClassVar[str] = ""


class EpochWise(MetricUsage):
    """Reset at the start of each epoch and computed at its end: what every metric does."""

    usage_name = "epoch_wise"


class RunningBatchWise(MetricUsage):
    """Never reset, and shown at each iteration: RunningAverage(epoch_bound=False)."""

    usage_name = "running_batch_wise"


class SingleEpochRunningBatchWise(MetricUsage):
    """Reset at the start of each epoch, and shown at each iteration: RunningAverage()."""

    usage_name = "single_epoch_running_batch_wise"


def usage_name(usage: Any) -> str:
    """The name of a usage, given as such or as text."""
    return usage if isinstance(usage, str) else str(getattr(usage, "usage_name", repr(usage)))


def refused(usage: Any, who: str, known: tuple[str, ...]) -> ValueError:
    """The error for a usage that a metric does not support."""
    return ValueError(
        f"{who} takes the usages {', '.join(known)}, but got {usage_name(usage)!r}. A metric's value of each batch, "
        "smoothed, is RunningAverage(metric, alpha); for other times call reset(), update() and compute() in handlers "
        "of your own"
    )
