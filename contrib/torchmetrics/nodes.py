"""The metrics that a torchmetrics metric is made of, their states by name, and what else they remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from leyden.contrib.torchmetrics.internals import attributes, declared
from leyden.metrics import Declaration

if TYPE_CHECKING:
    from torchmetrics import Metric as Node

COUNTER = "_update_count"
"""The name under which a node's count of updates is reduced and saved."""


def nodes_of(metric: torch.nn.Module) -> dict[str, Node]:
    """All metrics in it by their place, itself ("") included; each once."""
    from torchmetrics import Metric as Node

    return {place: module for place, module in metric.named_modules() if isinstance(module, Node)}


def state_name(place: str, attribute: str) -> str:
    """The name of a node's attribute among all of the metric."""
    return f"{place}.{attribute}" if place else attribute


def declarations_of(place: str, node: Node) -> dict[str, Declaration]:
    """The states of one node, and the count of its updates, in leyden's form."""
    found = {state_name(place, COUNTER): Declaration(torch.tensor(0), "sum", counter=True)}
    for attribute, (default, function) in declared(node).items():
        reduction = _NAMES.get(getattr(function, "__name__", ""), function)
        listed = isinstance(default, list)
        if listed and reduction not in ("cat", None) and not callable(reduction):
            raise ValueError(
                f"the state {attribute} of {type(node).__name__} is a list reduced by {reduction!r}; a list is reduced "
                'by "cat", None or a function'
            )
        tensor = torch.empty(0) if isinstance(default, list) else default.detach().cpu().clone()
        found[state_name(place, attribute)] = Declaration(
            tensor, "none" if reduction is None else reduction, listed=listed, fixed=False
        )
    return found


_NAMES = {
    "dim_zero_sum": "sum",
    "dim_zero_mean": "mean",
    "dim_zero_max": "max",
    "dim_zero_min": "min",
    "dim_zero_cat": "cat",
}
"""torchmetrics' functions for the reductions that it gives names to."""


def memory_of(nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Numbers, texts and tensors that are neither states nor parameters, by name: some metrics learn of the data what
    they are for (a mode), or count by themselves.
    """
    found: dict[str, Any] = {}
    for place, node in nodes.items():
        for attribute, value in attributes(node).items():
            if _is_plain(value):
                found[state_name(place, attribute)] = value.clone() if isinstance(value, torch.Tensor) else value
    return found


def changed(memory: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What of it is not as it was."""
    return {name: value for name, value in memory.items() if name not in before or not _equal(value, before[name])}


def remember(nodes: Mapping[str, Node], memory: Mapping[str, Any]) -> None:
    """Puts it back."""
    for place, node in nodes.items():
        prefix = f"{place}." if place else ""
        for name, value in memory.items():
            attribute = name.removeprefix(prefix)
            if name.startswith(prefix) and "." not in attribute:
                setattr(node, attribute, value.to(node.device) if isinstance(value, torch.Tensor) else value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or type(value) is torch.Tensor


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    return type(one) is type(other) and one == other
