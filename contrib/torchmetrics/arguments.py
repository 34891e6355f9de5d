"""From an engine's output to the arguments of a torchmetrics metric's `update`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from leyden.contrib.torchmetrics.internals import inner_metrics, is_collection, update_parameters
from leyden.metrics import described


class Arguments:
    """Made once for a metric: `of(output)` gives what its `update` takes.

    A tuple is taken in its order; so is a list of as many items as `update` asks for. A mapping goes by the names of
    `update` ("preds", "target", "indexes"), or by "y_pred" and "y". Anything else is the one argument.
    """

    def __init__(self, metric: Any) -> None:
        self._kind = type(metric).__name__
        signatures = [update_parameters(each) for each in _updated(metric)]
        self._takes_any = any(p.kind is p.VAR_KEYWORD for each in signatures for p in each)
        self._names = {p.name for each in signatures for p in each if p.kind in _NAMED}
        self._required = list(
            dict.fromkeys(p.name for each in signatures for p in each if p.kind in _NAMED and p.default is p.empty)
        )
        self._filters = is_collection(metric)  # a collection gives each of its metrics what that one takes

    def of(self, output: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Raises TypeError for a mapping without what is needed."""
        if isinstance(output, Mapping):
            return self._by_name(output)
        if isinstance(output, tuple) or (isinstance(output, list) and len(output) == len(self._required) > 1):
            return tuple(output), {}
        return (output,), {}

    def _by_name(self, output: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._required and all(name in output for name in self._required):
            everything = self._takes_any or self._filters
            return (), {k: v for k, v in output.items() if everything or k in self._names}
        if "y_pred" in output and "y" in output and len(self._required) <= 2:
            return (output["y_pred"], output["y"]), {}
        if not self._required and (named := {k: v for k, v in output.items() if k in self._names or self._takes_any}):
            return (), named
        if _takes_one(self._required, self._names):
            return (output,), {}  # one that measures mappings
        needed = ", ".join(self._required) or "other arguments"
        raise TypeError(
            f"the update of {self._kind} needs {needed}, but found {described(output)}; give it an output_transform: "
            f'engine.attach_metric(name, metric, output_transform=lambda output: (output["..."], output["..."]))'
        )


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _takes_one(required: Sequence[str], names: set[str]) -> bool:
    return len(required) == 1 and len(names) == 1


def _updated(metric: Any) -> list[Any]:
    """The metrics whose `update` says what is taken, where that of a wrapper takes anything."""
    if is_collection(metric):
        return [found for each in metric.values(copy_state=False) for found in _updated(each)]
    if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in update_parameters(metric)):
        return [found for each in inner_metrics(metric) for found in _updated(each)] or [metric]
    return [metric]
