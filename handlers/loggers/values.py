"""Named plain numbers out of what an engine holds: outputs, metrics, learning rates.

Reading a number copies it from the device, so this is called where something is shown or written, never in each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal

import torch

from leyden import distributed as dist
from leyden.engine import Engine
from leyden.engine.values import leaves_by_name
from leyden.metrics import OutputTransform

MetricChoice = Literal["all"] | Sequence[str] | None
"""Which of `state.metrics`: "all", a list of names, or None for none."""


def check_metric_choice(metrics: object, who: str) -> None:
    """Raises TypeError for anything but a choice of metrics."""
    if metrics is None or metrics == "all":
        return
    if isinstance(metrics, str) or not isinstance(metrics, Sequence) or not all(isinstance(n, str) for n in metrics):
        raise TypeError(f'{who}(metrics=) takes "all", a list of names, or None, but got {metrics!r}')


def scalars(value: Any, name: str) -> dict[str, float]:
    """The numbers in a value, by name: a number or a tensor of one element as it is, those of a mapping as `name/key`.

    All else is left out: larger tensors, sequences, text. A tensor that is sharded over ranks is left out too, for
    reading it would need them all.
    """
    return {
        leaf_name: number for leaf_name, leaf in leaves_by_name(value, name) if (number := _number(leaf)) is not None
    }


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor):
        return float(value.item()) if value.numel() == 1 and not value.is_complex() and dist.is_whole(value) else None
    return float(value) if isinstance(value, Real) else None


def output_name(engine: Engine[Any, Any]) -> str:
    """The name of an output that has none of its own."""
    return "loss" if engine.training else "output"


def output_scalars(engine: Engine[Any, Any], transform: OutputTransform | None = None) -> dict[str, float]:
    """The numbers in the output: a scalar as "loss" ("output" where the engine does not train), a mapping by key."""
    output = engine.state.output
    if transform is not None and output is not None:
        output = transform(output)
    return scalars(output, "" if isinstance(output, Mapping) else output_name(engine))


def chosen_metrics(metrics: Mapping[str, Any], choice: MetricChoice) -> list[str]:
    """The names of those metrics that are there now. "all" leaves out the items of a mapping that stand beside it,
    under names of their own, too.
    """
    if choice != "all":
        return [name for name in choice or () if name in metrics]
    items: set[str] = set()
    for name in metrics:
        if isinstance(value := metrics[name], Mapping) and (keys := [key for key in value if isinstance(key, str)]):
            starts = (f"{name}/", *(name[:end] for end in range(len(name), -1, -1)))  # the prefix that both have
            beside = next((start for start in starts if all(start + key in metrics for key in keys)), None)
            items.update(beside + key for key in keys if beside is not None)
    return [name for name in metrics if name not in items]


def metric_scalars(engine: Engine[Any, Any], choice: MetricChoice) -> dict[str, float]:
    """The numbers in those metrics that are there now; "all" leaves out those of many classes."""
    metrics = engine.state.metrics
    found: dict[str, float] = {}
    for name in chosen_metrics(metrics, choice):
        if choice != "all" or not isinstance(metrics[name], Mapping):
            found |= scalars(metrics[name], name)
    return found


def by_group(groups: Sequence[Mapping[str, Any]], option: str) -> dict[str, Any]:
    """An option of an optimizer's param groups, by the group's "name", or its number; of one group by "".

    Without those that have no parameters.
    """
    return {
        "" if len(groups) == 1 else str(group.get("name", index)): group[option]
        for index, group in enumerate(groups)
        if option in group and group["params"]
    }


def learning_rates(engine: Engine[Any, Any]) -> dict[str, float]:
    """The learning rate of each param group of each update's optimizer.

    One update with one group: "lr". Else the update's name, if there are several, and the group's ("name" in the group,
    or its number) follow: "lr/critic/0".
    """
    rates = {}
    for update in engine.updates.values():
        for group, rate in by_group(update.optimizer.param_groups, "lr").items():
            parts = ["lr", update.name if len(engine.updates) > 1 else "", group]
            rates["/".join(part for part in parts if part)] = float(rate)
    return rates
