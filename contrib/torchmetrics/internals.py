"""What leyden relies on of torchmetrics beside its documented methods: private names, read and set here alone.

A release that takes one away makes tests/contrib/torchmetrics/test_internals.py fail, which says which.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torchmetrics import Metric

RELIED_ON = {
    "_defaults": "the declared states; `metric_state` tells their values, but not which are lists",
    "_reductions": "how the values of ranks become one; only the metric's own synchronisation reads it",
    "_update_count": "`update_count` can't be set, and a mean weighs by it",
    "_computed": "a value that was computed hides the states of all ranks",
    "_to_sync": "`sync_on_compute` is read when the metric is made",
    "_update_signature": "`update` itself is wrapped, and takes anything",
}
"""Attributes of every metric, each with the reason."""

_INNER = {
    *RELIED_ON, "_forward_cache", "_is_synced", "_cache", "_should_unsync", "_enable_grad", "_dtype_convert",
    "_device", "_dtype", "sync_on_compute", "training",
}  # fmt: skip
"""Attributes of every metric that are no memory of what it saw."""


def declared(node: Metric) -> dict[str, tuple[torch.Tensor | list[Any], Any]]:
    """The default and the reduction of each state."""
    return {name: (default, node._reductions[name]) for name, default in node._defaults.items()}


def values(node: Metric) -> dict[str, Any]:
    """The states as they are."""
    return {name: getattr(node, name) for name in node._defaults}


def updates(node: Metric) -> int:
    """How many updates it has seen."""
    return int(node._update_count)


def set_updates(node: Metric, count: int) -> None:
    """Has it count from there."""
    node._update_count = count


def forget_computed(node: Metric) -> None:
    """Has the next `compute` look at the states."""
    node._computed = None


def synchronisation(node: Metric) -> tuple[bool, bool]:
    """How it is set, for `set_synchronisation`."""
    return node.sync_on_compute, node._to_sync


def set_synchronisation(node: Metric, on_compute: bool, to_sync: bool) -> None:
    """With False twice its `compute` uses the states as they are."""
    node.sync_on_compute, node._to_sync = on_compute, to_sync


def update_parameters(node: Metric) -> list[inspect.Parameter]:
    """What its own `update` takes."""
    return list(node._update_signature.parameters.values())


def attributes(node: Metric) -> dict[str, Any]:
    """Attributes and buffers that a class of metrics has beside those of every metric, and beside its states."""
    own = {**vars(node), **dict(node.named_buffers(recurse=False))}
    return {name: value for name, value in own.items() if name not in _INNER and name not in node._defaults}


def is_collection(metric: Any) -> bool:
    """A MetricCollection, whose `update` gives each member what that one takes."""
    return hasattr(metric, "_groups")


def keys_of_collection(collection: Any, members: Mapping[str, tuple[Any, tuple[str, ...]]]) -> tuple[str, ...]:
    """The keys of a collection's value, each member's given with those of its own value, empty for one that is no
    mapping. How torchmetrics names them has many cases, so it does it itself, for stand-ins.
    """
    from torchmetrics import MetricCollection

    if not members:
        return ()
    stand_ins = {name: _stand_in(metric, keys) for name, (metric, keys) in members.items()}
    named = MetricCollection(stand_ins, prefix=collection.prefix, postfix=collection.postfix, compute_groups=False)  # type: ignore[arg-type]
    named.update()
    return tuple(named.compute())


def _stand_in(metric: Any, keys: tuple[str, ...]) -> Metric:
    """One that measures nothing, whose value has these keys."""
    from torchmetrics import Metric

    class StandIn(Metric):
        def update(self) -> None:
            pass

        def compute(self) -> Any:
            return dict.fromkeys(keys, 0.0) if keys else 0.0

    found = StandIn(sync_on_compute=False)
    for attribute in ("prefix", "postfix", "_from_collection"):
        if hasattr(metric, attribute):
            setattr(found, attribute, getattr(metric, attribute))
    return found


def class_names(wrapper: Any) -> tuple[str, ...]:
    """The keys of a ClasswiseWrapper's value; empty where the data tell how many classes there are."""
    labels = wrapper.labels
    if labels is None:
        counts = [getattr(wrapper.metric, name, None) for name in ("num_classes", "num_labels")]
        labels = range(next((count for count in counts if isinstance(count, int)), 0))
    prefix, postfix = wrapper._prefix, wrapper._postfix
    if not prefix and not postfix:
        prefix = f"{type(wrapper.metric).__name__.lower()}_"
    return tuple(f"{prefix or ''}{label}{postfix or ''}" for label in labels)


def inner_metrics(metric: Any) -> list[Any]:
    """What a wrapper hands its arguments on to."""
    names = ("metric", "base_metric", "_base_metric", "metric_a", "metric_b")
    return [each for name in names if hasattr(each := getattr(metric, name, None), "update")]
