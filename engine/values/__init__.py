"""Values as users and data give them: whole numbers, nested containers of tensors, metrics by name."""

from leyden.engine.values.metric_values import MetricValues
from leyden.engine.values.metric_watch import MetricWatch, WatchedMetric
from leyden.engine.values.moving import SCALAR_TYPES, Move, move_module, move_nested, mover, to_device
from leyden.engine.values.whole_numbers import NEVER, as_whole, whole_number

__all__ = [
    "NEVER",
    "SCALAR_TYPES",
    "MetricValues",
    "MetricWatch",
    "Move",
    "WatchedMetric",
    "as_whole",
    "move_module",
    "move_nested",
    "mover",
    "to_device",
    "whole_number",
]
