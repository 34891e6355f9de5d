"""Values as users and data give them: whole numbers, nested containers of tensors, metrics by name."""

from leyden.engine.values.attach_metrics import from_another_package
from leyden.engine.values.metric_values import Deferred, MetricValues
from leyden.engine.values.metric_watch import MetricWatch, WatchedMetric
from leyden.engine.values.moving import Move, move_module, move_nested, mover, to_device
from leyden.engine.values.nested import (
    SCALAR_TYPES,
    detached,
    first_tensor,
    items_of,
    leaves_by_name,
    leaves_of,
    map_leaves,
    map_tensors,
    tensors_of,
    with_items,
)
from leyden.engine.values.whole_numbers import NEVER, as_whole, whole_number

__all__ = [
    "NEVER",
    "SCALAR_TYPES",
    "Deferred",
    "MetricValues",
    "MetricWatch",
    "Move",
    "WatchedMetric",
    "as_whole",
    "detached",
    "first_tensor",
    "from_another_package",
    "items_of",
    "leaves_by_name",
    "leaves_of",
    "map_leaves",
    "map_tensors",
    "move_module",
    "move_nested",
    "mover",
    "tensors_of",
    "to_device",
    "whole_number",
    "with_items",
]
