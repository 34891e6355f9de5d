"""The names that a torchmetrics metric's value brings, where they are known before the run."""

from __future__ import annotations

from typing import Any

from leyden.contrib.torchmetrics.internals import class_names, is_collection, renamed


def say_little(metric: Any) -> bool:
    """Whether the keys of its value are the same for whatever it measures."""
    return _kind(metric) in ("MinMaxMetric", "BootStrapper")


def result_keys(metric: Any) -> tuple[str, ...]:
    """The keys of a value that is a mapping; empty where it is none, or where only the data tell."""
    if is_collection(metric):
        members = dict(metric.items(keep_base=True, copy_state=False))
        if any(result_keys(member) or _unknown(member) for member in members.values()):
            return ()
        return tuple(renamed(metric, name) for name in members)
    kind = _kind(metric)
    if kind == "MinMaxMetric":
        return ("raw", "max", "min")
    if kind == "BootStrapper":
        wanted = {"mean": metric.mean, "std": metric.std, "quantile": metric.quantile is not None, "raw": metric.raw}
        return tuple(name for name, there in wanted.items() if there)
    if kind == "ClasswiseWrapper":
        return class_names(metric)
    return ()


def _unknown(metric: Any) -> bool:
    """Its value may be a mapping, of keys that only the data tell."""
    return _kind(metric) in ("ClasswiseWrapper", "MultitaskWrapper") or "text" in type(metric).__module__


def _kind(metric: Any) -> str:
    """Its class in torchmetrics, from which a user's own may be derived."""
    found = (each.__name__ for each in type(metric).__mro__ if each.__module__.startswith("torchmetrics.wrappers"))
    return next(found, type(metric).__name__)
