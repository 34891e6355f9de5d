"""What is measured: metrics accumulate on the device and are reduced over all ranks once an epoch."""

from leyden.metrics.accuracy import Accuracy
from leyden.metrics.auroc import AUROC
from leyden.metrics.average_precision import AveragePrecision
from leyden.metrics.base import Metric, OutputTransform
from leyden.metrics.calibration_error import CalibrationError
from leyden.metrics.classification import ClassificationMetric
from leyden.metrics.confusion_matrix import ConfusionMatrix
from leyden.metrics.derived import Derived, MetricsLambda
from leyden.metrics.epoch_metric import EpochMetric
from leyden.metrics.errors import NotComputableError
from leyden.metrics.f_beta import F1, FBeta
from leyden.metrics.frequency import Frequency
from leyden.metrics.geometric_mean import GeometricMean
from leyden.metrics.group import MetricGroup
from leyden.metrics.loss import Loss
from leyden.metrics.mean import Mean
from leyden.metrics.multi_label_confusion_matrix import MultiLabelConfusionMatrix
from leyden.metrics.outputs import described, device_of
from leyden.metrics.overlap import Dice, IoU, MeanIoU
from leyden.metrics.perplexity import Perplexity
from leyden.metrics.precision_recall import Precision, Recall
from leyden.metrics.r2_score import R2Score
from leyden.metrics.ranking import RankingMetric
from leyden.metrics.regression import MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError
from leyden.metrics.running_average import RunningAverage
from leyden.metrics.saved_states import all_parts
from leyden.metrics.states import Declaration, StateReduction, StateValue, kept_on
from leyden.metrics.usage import (
    BatchFiltered,
    BatchWise,
    EpochWise,
    MetricUsage,
    RunningBatchWise,
    RunningWindow,
    SingleEpochRunningBatchWise,
)
from leyden.metrics.usage_groups import Usage

__all__ = [
    "AUROC",
    "F1",
    "Accuracy",
    "AveragePrecision",
    "BatchFiltered",
    "BatchWise",
    "CalibrationError",
    "ClassificationMetric",
    "ConfusionMatrix",
    "Declaration",
    "Derived",
    "Dice",
    "EpochMetric",
    "EpochWise",
    "FBeta",
    "Frequency",
    "GeometricMean",
    "IoU",
    "Loss",
    "Mean",
    "MeanAbsoluteError",
    "MeanIoU",
    "MeanSquaredError",
    "Metric",
    "MetricGroup",
    "MetricUsage",
    "MetricsLambda",
    "MultiLabelConfusionMatrix",
    "NotComputableError",
    "OutputTransform",
    "Perplexity",
    "Precision",
    "R2Score",
    "RankingMetric",
    "Recall",
    "RootMeanSquaredError",
    "RunningAverage",
    "RunningBatchWise",
    "RunningWindow",
    "SingleEpochRunningBatchWise",
    "StateReduction",
    "StateValue",
    "Usage",
    "all_parts",
    "described",
    "device_of",
    "kept_on",
]
