"""Metrics that are computed from other metrics' results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from leyden.engine.values import from_another_package
from leyden.metrics.base import Metric


class Derived(Metric):
    """`function(*operands, **named)`, with the results of those operands that are metrics: `Derived(torch.mean,
    f1_by_class)`.

    The results of leyden's metrics are tensors. Arithmetic makes such metrics, and so do the methods of tensors,
    `f1_by_class.mean()`; a metric that several of them use is updated, reduced and computed once.
    """

    required_output_keys = None

    def __init__(self, function: Callable[..., Any], *operands: Any, **named: Any) -> None:
        super().__init__()
        self.function = function
        self.operands = tuple(map(_measuring, operands))
        self.named = {name: _measuring(operand) for name, operand in named.items()}
        self._begun = True  # its sources begin for themselves

    def sources(self) -> tuple[Metric, ...]:
        everything = (*self.operands, *self.named.values())
        found = (source for operand in everything if isinstance(operand, Metric) for source in operand.sources())
        return tuple(dict.fromkeys(found))

    def private(self) -> tuple[Metric, ...]:
        return tuple(each for source in self.sources() for each in source.private())

    def reset(self) -> None:
        for source in self.sources():
            source.reset()

    def observe(self, output: Any) -> None:
        for source in self.sources():
            source.observe(output)

    def update(self, output: Any) -> None:
        for source in self.sources():
            source.update(output)

    def compute(self) -> Any:
        return self.result({source: source.compute() for source in self.sources()})

    def result(self, values: Mapping[Metric, Any]) -> Any:
        def value(operand: Any) -> Any:
            return operand.result(values) if isinstance(operand, Metric) else operand

        return self.function(*map(value, self.operands), **{name: value(each) for name, each in self.named.items()})

    def state_dict(self) -> dict[str, torch.Tensor | int]:
        """A copy of the states of its sources, by their position."""
        states: dict[str, torch.Tensor | int] = {}
        for position, source in enumerate(self.sources()):
            states |= {f"{position}.{name}": value for name, value in source.state_dict().items()}
        return states

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor | int]) -> None:
        sources = self.sources()
        positions = {int(name.partition(".")[0]) if name[:1].isdigit() else -1 for name in state_dict}
        if positions != set(range(len(sources))):
            kinds = ", ".join(type(source).__name__ for source in sources)
            raise ValueError(
                f"this derived metric has the sources {kinds}, numbered from 0, but was given {', '.join(state_dict)}"
            )
        for source, state in zip(sources, self._by_source(state_dict), strict=True):
            source.load_state_dict(state)

    def load_state_dicts(self, states: Sequence[Mapping[str, torch.Tensor | int]], *, first: bool) -> None:
        split = [self._by_source(state) for state in states]
        for source, *each in zip(self.sources(), *split, strict=True):
            source.load_state_dicts(each, first=first)

    def _by_source(self, state_dict: Mapping[str, torch.Tensor | int]) -> list[dict[str, torch.Tensor | int]]:
        parts: list[dict[str, torch.Tensor | int]] = [{} for _ in self.sources()]
        for name, value in state_dict.items():
            position, _, state = name.partition(".")
            parts[int(position)][state] = value
        return parts

    def _check_updated(self) -> None:
        """The sources check this themselves."""


def _measuring(operand: Any) -> Any:
    """The operand, or what measures with it where it is a metric of another package."""
    if isinstance(operand, Metric | torch.Tensor) or not hasattr(operand, "compute"):
        return operand
    found = from_another_package(operand, None)
    return operand if found is None else found


MetricsLambda = Derived
