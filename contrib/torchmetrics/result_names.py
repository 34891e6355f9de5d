"""The names that a torchmetrics metric's value brings, where they are known before the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leyden.contrib.torchmetrics.internals import class_names, is_collection, keys_of_collection


def say_little(metric: Any) -> bool:
    """Whether the keys of its value are the same for whatever it measures."""
    return _kind(metric) in ("MinMaxMetric", "BootStrapper")


def result_keys(metric: Any) -> tuple[str, ...]:
    """The keys of a value that is a mapping; empty where it is none, or where only the data tell. Of a collection
    those that are known.
    """
    if is_collection(metric):
        members = dict(metric.items(keep_base=True, copy_state=False))
        keys = {name: result_keys(member) for name, member in members.items()}
        known = {name: member for name, member in members.items() if keys[name] or not _unforeseen(member)}
        return keys_of_collection(metric, {name: (member, keys[name]) for name, member in known.items()})
    metric = _measuring(metric)
    find = _KEYS.get(_kind(metric))
    return () if find is None else find(metric)


def _of_bootstrapper(metric: Any) -> tuple[str, ...]:
    wanted = {"mean": metric.mean, "std": metric.std, "quantile": metric.quantile is not None, "raw": metric.raw}
    return tuple(name for name, there in wanted.items() if there)


def _of_rouge(metric: Any) -> tuple[str, ...]:
    return tuple(f"{key}_{part}" for key in metric.rouge_keys for part in ("fmeasure", "precision", "recall"))


def _of_tasks(metric: Any) -> tuple[str, ...]:
    return tuple(metric.keys(flatten=False))


_KEYS: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "MinMaxMetric": lambda metric: ("raw", "max", "min"),
    "BootStrapper": _of_bootstrapper,
    "ClasswiseWrapper": class_names,
    "MultitaskWrapper": _of_tasks,
    "ROUGEScore": _of_rouge,
    "SQuAD": lambda metric: ("exact_match", "f1"),
}
"""By class, for those whose values are mappings."""


def _unforeseen(metric: Any) -> bool:
    """Its value may be a mapping, of keys that only the data tell."""
    metric = _measuring(metric)
    package = type(metric).__module__
    return _kind(metric) in _KEYS or any(each in package for each in ("text", "detection", "group_fairness"))


def _measuring(metric: Any) -> Any:
    """The metric whose value a wrapper hands on as it is; itself for any other."""
    while (attribute := _HANDED_ON.get(_kind(metric))) is not None:
        metric = getattr(metric, attribute)
    return metric


_HANDED_ON = {
    "Running": "base_metric",
    "LambdaInputTransformer": "wrapped_metric",
    "BinaryTargetTransformer": "wrapped_metric",
}


def _kind(metric: Any) -> str:
    """Its class in torchmetrics, from which a user's own may be derived."""
    classes = [each for each in type(metric).__mro__ if each.__module__.startswith("torchmetrics.")]
    return next((each.__name__ for each in classes if each.__name__ in {**_KEYS, **_HANDED_ON}), type(metric).__name__)
