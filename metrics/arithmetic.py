"""Operators between metrics and numbers: each gives a metric that is computed from the results of others."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import torch

if TYPE_CHECKING:
    from leyden.metrics.base import Metric

Operand: TypeAlias = Union["Metric", torch.Tensor, float]


class Arithmetic(ABC):
    """`1 - Accuracy()`, `2 * p * r / (p + r)`, `abs(m)`, `m[1]`, `m["key"]`, `m.mean()`."""

    @abstractmethod
    def derive(self, function: Callable[..., Any], *operands: Any, **named: Any) -> Metric:
        """The metric `function(*operands, **named)`, where metrics among these stand for their results."""

    def __add__(self, other: Operand) -> Metric:
        return self.derive(operator.add, self, other)

    def __radd__(self, other: Operand) -> Metric:
        return self.derive(operator.add, other, self)

    def __sub__(self, other: Operand) -> Metric:
        return self.derive(operator.sub, self, other)

    def __rsub__(self, other: Operand) -> Metric:
        return self.derive(operator.sub, other, self)

    def __mul__(self, other: Operand) -> Metric:
        return self.derive(operator.mul, self, other)

    def __rmul__(self, other: Operand) -> Metric:
        return self.derive(operator.mul, other, self)

    def __truediv__(self, other: Operand) -> Metric:
        return self.derive(operator.truediv, self, other)

    def __rtruediv__(self, other: Operand) -> Metric:
        return self.derive(operator.truediv, other, self)

    def __floordiv__(self, other: Operand) -> Metric:
        return self.derive(operator.floordiv, self, other)

    def __rfloordiv__(self, other: Operand) -> Metric:
        return self.derive(operator.floordiv, other, self)

    def __mod__(self, other: Operand) -> Metric:
        return self.derive(operator.mod, self, other)

    def __rmod__(self, other: Operand) -> Metric:
        return self.derive(operator.mod, other, self)

    def __pow__(self, other: Operand) -> Metric:
        return self.derive(operator.pow, self, other)

    def __rpow__(self, other: Operand) -> Metric:
        return self.derive(operator.pow, other, self)

    def __neg__(self) -> Metric:
        return self.derive(operator.neg, self)

    def __abs__(self) -> Metric:
        return self.derive(operator.abs, self)

    def __getitem__(self, index: Any) -> Metric:
        return self.derive(operator.getitem, self, index)

    def __getattr__(self, name: str) -> Callable[..., Metric]:
        """A method of tensors, applied to the result: `(2 * p * r / (p + r)).mean()`."""
        # Only asked for what a metric has not itself. A misspelt name must not become a metric.
        if name.startswith("_") or not callable(getattr(torch.Tensor, name, None)):
            raise AttributeError(f"{type(self).__name__} has no {name!r}, and tensors have no method of that name")
        return partial(self.derive, partial(_call, name), self)

    # With __getitem__ alone Python would take a metric for an endless sequence.
    __iter__ = None
    __contains__ = None


def _call(method: str, value: Any, *args: Any, **named: Any) -> Any:
    return getattr(torch.as_tensor(value), method)(*args, **named)
