"""The names of `ignite.metrics` that leyden has."""

from leyden.metrics import (
    Accuracy,
    ConfusionMatrix,
    Loss,
    MeanSquaredError,
    Metric,
    MetricsLambda,
    Precision,
    Recall,
    RunningAverage,
)
from leyden.metrics import Mean as Average

__all__ = [
    "Accuracy",
    "Average",
    "ConfusionMatrix",
    "Loss",
    "MeanSquaredError",
    "Metric",
    "MetricsLambda",
    "Precision",
    "Recall",
    "RunningAverage",
]
