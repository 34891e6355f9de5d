"""The names of `ignite.metrics.metric`: what a metric of one's own is made with."""

from leyden.contrib.ignite.metrics.sync import reinit__is_reduced, sync_all_reduce
from leyden.metrics import (
    BatchFiltered,
    BatchWise,
    EpochWise,
    Metric,
    MetricUsage,
    RunningBatchWise,
    SingleEpochRunningBatchWise,
)

__all__ = [
    "BatchFiltered",
    "BatchWise",
    "EpochWise",
    "Metric",
    "MetricUsage",
    "RunningBatchWise",
    "SingleEpochRunningBatchWise",
    "reinit__is_reduced",
    "sync_all_reduce",
]
