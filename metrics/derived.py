"""Metrics that are computed from other metrics' results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leyden.metrics.base import Metric


class Derived(Metric):
    """`function(*operands, **named)`, with the results of those operands that are metrics: `Derived(torch.mean,
    f1_by_class)`.

    The results of leyden's metrics are tensors. Arithmetic makes such metrics; a metric that several of them use is
    updated, reduced and computed once.
    """

    required_output_keys = None

    def __init__(self, function: Callable[..., Any], *operands: Any, **named: Any) -> None:
        super().__init__()
        self.function = function
        self.operands = operands
        self.named = named

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

    def _check_updated(self) -> None:
        """Its sources look for themselves."""


MetricsLambda = Derived
