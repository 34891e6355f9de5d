"""Named plain numbers out of what an engine holds: outputs, metrics, learning rates.

Reading a number copies it from the device, so this is called where something is shown or written, never in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Literal

import torch

from leyden.engine import Engine

MetricChoice = Literal["all"] | Sequence[str] | None
"""Which of `state.metrics`: "all", a list of names, or None for none."""

OutputTransform = Callable[[Any], Any]
"""From `state.output` to a scalar or a mapping of scalars."""


def check_choice(metrics: object, who: str) -> None:
    """Raises TypeError for what is no choice of metrics."""
    if metrics is None or metrics == "all":
        return
    if isinstance(metrics, str) or not isinstance(metrics, Sequence) or not all(isinstance(n, str) for n in metrics):
        raise TypeError(f'{who}(metrics=) takes "all", a list of names, or None, but got {metrics!r}')


def scalars(value: Any, name: str) -> dict[str, float]:
    """The numbers in a value, by name: a number or a tensor of one element as it is, those of a mapping as `name/key`.

    All else is left out: larger tensors, sequences, text. A tensor that is sharded over ranks is left out too, for
    reading it would need them all.
    """
    return dict(_scalars(value, name))


def _scalars(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, torch.Tensor):
        sharded = any(not placement.is_replicate() for placement in getattr(value, "placements", ()))
        if value.numel() == 1 and not value.is_complex() and not sharded:
            yield name, float(value.item())
    elif isinstance(value, Real):
        yield name, float(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(item, f"{name}/{key}" if name else str(key))


def output_scalars(
    engine: Engine[Any, Any], transform: OutputTransform | None = None, prefix: str = ""
) -> dict[str, float]:
    """The numbers in the output: a scalar as "loss" ("output" where the engine does not train), a mapping by key."""
    output = engine.state.output
    if transform is not None and output is not None:
        output = transform(output)
    if not isinstance(output, Mapping):
        return scalars(output, prefix + ("loss" if engine.training else "output"))
    return {prefix + name: number for name, number in scalars(output, "").items()}


def metric_scalars(engine: Engine[Any, Any], choice: MetricChoice, mappings: bool = True) -> dict[str, float]:
    """The numbers in those metrics that are there now; without `mappings`, "all" leaves out those of many classes."""
    metrics = engine.state.metrics
    names = list(metrics) if choice == "all" else [name for name in choice or () if name in metrics]
    found: dict[str, float] = {}
    for name in names:
        value = metrics[name]
        if mappings or choice != "all" or not isinstance(value, Mapping):
            found |= scalars(value, name)
    return found


def learning_rates(engine: Engine[Any, Any]) -> dict[str, float]:
    """The learning rate of each param group of each update's optimizer.

    One update with one group: "lr". Else the update's name, if there are several, and the group's ("name" in the group,
    or its number) follow: "lr/critic/0".
    """
    rates = {}
    for update in engine.updates.values():
        groups = update.optimizer.param_groups
        for index, group in enumerate(groups):
            if "lr" not in group:
                continue
            parts = ["lr"]
            if len(engine.updates) > 1:
                parts.append(update.name)
            if len(groups) > 1:
                parts.append(str(group.get("name", index)))
            rates["/".join(parts)] = float(group["lr"])
    return rates
