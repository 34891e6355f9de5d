"""What is measured: metrics accumulate on the device and are reduced over all ranks once an epoch."""

from leyden.metrics.accuracy import Accuracy
from leyden.metrics.base import Metric, OutputTransform
from leyden.metrics.classification import ClassificationMetric
from leyden.metrics.confusion_matrix import ConfusionMatrix
from leyden.metrics.derived import Derived, MetricsLambda
from leyden.metrics.errors import NotComputableError
from leyden.metrics.group import MetricGroup
from leyden.metrics.loss import Loss
from leyden.metrics.mean import Mean
from leyden.metrics.precision_recall import Precision, Recall
from leyden.metrics.regression import MeanSquaredError
from leyden.metrics.running_average import RunningAverage
from leyden.metrics.usage import EpochWise, MetricUsage, RunningBatchWise, SingleEpochRunningBatchWise

__all__ = [
    "Accuracy",
    "ClassificationMetric",
    "ConfusionMatrix",
    "Derived",
    "EpochWise",
    "Loss",
    "Mean",
    "MeanSquaredError",
    "Metric",
    "MetricGroup",
    "MetricUsage",
    "MetricsLambda",
    "NotComputableError",
    "OutputTransform",
    "Precision",
    "Recall",
    "RunningAverage",
    "RunningBatchWise",
    "SingleEpochRunningBatchWise",
]
