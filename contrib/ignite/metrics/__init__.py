"""The names of `ignite.metrics` that leyden has."""

from leyden.contrib.ignite.metrics.running_average import RunningAverage
from leyden.metrics import (
    Accuracy,
    ConfusionMatrix,
    EpochWise,
    Loss,
    MeanSquaredError,
    Metric,
    MetricsLambda,
    MetricUsage,
    Precision,
    Recall,
    RunningBatchWise,
    SingleEpochRunningBatchWise,
)

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "EpochWise",
    "Loss",
    "MeanSquaredError",
    "Metric",
    "MetricUsage",
    "MetricsLambda",
    "Precision",
    "Recall",
    "RunningAverage",
    "RunningBatchWise",
    "SingleEpochRunningBatchWise",
]
