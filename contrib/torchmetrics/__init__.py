"""torchmetrics: any of its metrics, collections and wrappers, measured as leyden's own metrics are."""

from leyden.contrib.torchmetrics.adapter import TorchMetric, adapt

__all__ = ["TorchMetric", "adapt"]
