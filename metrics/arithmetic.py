"""Operators between metrics and numbers: each gives a metric that is computed from the results of others."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import torch

if TYPE_CHECKING:
    from leyden.metrics.base import Metric

Operand: TypeAlias = Union["Metric", torch.Tensor, float]


class Arithmetic(ABC):
    """`1 - Accuracy()`, `2 * p * r / (p + r)`, `abs(m)`, `m[1]`, `m["key"]`, `m.mean()`."""

    @abstractmethod
    def derive(self, function: Callable[..., Any], *operands: Any, **named: Any) -> Metric:
        """The metric `function(*operands, **named)`, where metrics among these stand for their results."""

    def _combined(self, function: Callable[[Any, Any], Any], one: Any, other: Any) -> Metric:
        for operand in (one, other):
            if not isinstance(operand, Arithmetic | torch.Tensor | Number | np.ndarray) and not _measures(operand):
                raise TypeError(
                    f"metrics are combined with metrics, numbers and tensors, but got {operand!r} beside a "
                    f"{type(self).__name__}"
                )
        return self.derive(function, one, other)

    def __add__(self, other: Operand) -> Metric:
        return self._combined(operator.add, self, other)

    def __radd__(self, other: Operand) -> Metric:
        return self._combined(operator.add, other, self)

    def __sub__(self, other: Operand) -> Metric:
        return self._combined(operator.sub, self, other)

    def __rsub__(self, other: Operand) -> Metric:
        return self._combined(operator.sub, other, self)

    def __mul__(self, other: Operand) -> Metric:
        return self._combined(operator.mul, self, other)

    def __rmul__(self, other: Operand) -> Metric:
        return self._combined(operator.mul, other, self)

    def __truediv__(self, other: Operand) -> Metric:
        return self._combined(operator.truediv, self, other)

    def __rtruediv__(self, other: Operand) -> Metric:
        return self._combined(operator.truediv, other, self)

    def __floordiv__(self, other: Operand) -> Metric:
        return self._combined(operator.floordiv, self, other)

    def __rfloordiv__(self, other: Operand) -> Metric:
        return self._combined(operator.floordiv, other, self)

    def __mod__(self, other: Operand) -> Metric:
        return self._combined(operator.mod, self, other)

    def __rmod__(self, other: Operand) -> Metric:
        return self._combined(operator.mod, other, self)

    def __pow__(self, other: Operand) -> Metric:
        return self._combined(operator.pow, self, other)

    def __rpow__(self, other: Operand) -> Metric:
        return self._combined(operator.pow, other, self)

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
            if "declarations" not in vars(self):
                raise AttributeError(
                    f"{type(self).__name__} has no {name!r}: its __init__ must call super().__init__(output_transform)"
                )
            raise AttributeError(f"{type(self).__name__} has no {name!r}, and tensors have no method of that name")
        return partial(self.derive, partial(_call, name), self)

    # With __getitem__ alone Python would take a metric for an endless sequence.
    __iter__ = None
    __contains__ = None


def _call(method: str, value: Any, *args: Any, **named: Any) -> Any:
    return getattr(torch.as_tensor(value), method)(*args, **named)


def _measures(operand: Any) -> bool:
    """Whether it may be a metric of another package."""
    return hasattr(operand, "compute") and not isinstance(operand, type)
