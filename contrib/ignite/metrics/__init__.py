"""The names of `ignite.metrics` that leyden has; asking for another tells what to write."""

from leyden.contrib.ignite.metrics.confusion_matrix import (
    DiceCoefficient,
    IoU,
    JaccardIndex,
    cmAccuracy,
    cmPrecision,
    cmRecall,
    mIoU,
)
from leyden.contrib.ignite.metrics.elsewhere import not_here
from leyden.contrib.ignite.metrics.fbeta import Fbeta
from leyden.contrib.ignite.metrics.ranking import ROC_AUC, AveragePrecision
from leyden.contrib.ignite.metrics.running_average import RunningAverage
from leyden.contrib.ignite.metrics.top_k import TopKCategoricalAccuracy
from leyden.metrics import (
    Accuracy,
    BatchFiltered,
    BatchWise,
    ConfusionMatrix,
    EpochMetric,
    EpochWise,
    Frequency,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    MetricsLambda,
    MetricUsage,
    MultiLabelConfusionMatrix,
    Perplexity,
    Precision,
    Recall,
    RootMeanSquaredError,
    RunningBatchWise,
    SingleEpochRunningBatchWise,
)

__all__ = [
    "ROC_AUC",
    "Accuracy",
    "AveragePrecision",
    "BatchFiltered",
    "BatchWise",
    "ConfusionMatrix",
    "DiceCoefficient",
    "EpochMetric",
    "EpochWise",
    "Fbeta",
    "Frequency",
    "IoU",
    "JaccardIndex",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "MetricUsage",
    "MetricsLambda",
    "MultiLabelConfusionMatrix",
    "Perplexity",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "RunningAverage",
    "RunningBatchWise",
    "SingleEpochRunningBatchWise",
    "TopKCategoricalAccuracy",
    "cmAccuracy",
    "cmPrecision",
    "cmRecall",
    "mIoU",
]

__getattr__ = not_here(__name__)
