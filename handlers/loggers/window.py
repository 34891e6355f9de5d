"""Means of what a step gives over the iterations between two logging points, without a copy to the host."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch

from leyden import distributed as dist
from leyden.metrics import kept_on


class _Sum:
    """`kind`, `dtype`: of values that may be added to it straight."""

    __slots__ = ("count", "dtype", "kind", "total")

    def __init__(
        self, total: torch.Tensor | float, count: int, kind: type[Any] = object, dtype: torch.dtype | None = None
    ) -> None:
        self.total = total
        self.count = count
        self.kind = kind
        self.dtype = dtype


class WindowMean:
    """Adds up named numbers where they are, and gives their means, each over the iterations that had it."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}
        self.names: set[str] = set()
        """The names of all numbers seen so far."""

    def add(self, name: str, value: Any) -> None:
        """A number, a tensor of one element, or a mapping of them, whose names are `name/key`.

        All else is left out, and so are tensors that are sharded over ranks.
        """
        known = self._sums.get(name)
        if known is not None and type(value) is known.kind:
            total: Any = known.total
            if known.kind is float:
                known.total = total + value
                known.count += 1
                return
            if value.dtype is known.dtype and value.ndim == 0 and value.device == total.device:
                total.add_(value.detach() if value.requires_grad else value)
                known.count += 1
                return
        self._add_any(name, value)

    def add_all(self, values: Mapping[Any, Any], name: str = "") -> None:
        """The numbers of a mapping."""
        for key, value in values.items():
            self.add(f"{name}/{key}" if name else str(key), value)

    def _add_any(self, name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if (number := _one_number(value)) is not None:
                self._put(name, number, torch.Tensor, value.dtype)
        elif isinstance(value, Real):
            self._put(name, float(value), float, None)
        elif isinstance(value, Mapping):
            self.add_all(value, name)

    def _put(self, name: str, number: torch.Tensor | float, kind: type[Any], dtype: torch.dtype | None) -> None:
        known = self._sums.get(name)
        if known is None:
            self._sums[name] = _Sum(number, 1, kind, dtype)
            self.names.add(name)
            return
        total = known.total
        if isinstance(number, torch.Tensor) and isinstance(total, torch.Tensor):
            total = total.to(number.device)
        known.total = total + number
        known.count += 1
        if isinstance(known.total, torch.Tensor):
            known.kind, known.dtype = torch.Tensor, dtype

    def take(self) -> dict[str, float]:
        """The means since they were last taken; copies one number each from the device."""
        sums, self._sums = self._sums, {}
        return {name: float(each.total) / each.count for name, each in sums.items()}

    def clear(self) -> None:
        self._sums, self.names = {}, set()

    def state_dict(self) -> dict[str, Any]:
        """Plain data, and tensors that may be the live ones."""
        sums = {name: [each.total, each.count] for name, each in self._sums.items()}
        return {"sums": sums, "names": sorted(self.names)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._sums = {name: _Sum(total, count) for name, (total, count) in state_dict["sums"].items()}
        self.names = set(state_dict["names"])


def _one_number(value: torch.Tensor) -> torch.Tensor | None:
    """A tensor's one element in memory of its own, wide enough to add many to it; None if it has another number."""
    if value.numel() != 1 or value.is_complex() or not dist.is_whole(value):
        return None
    dtype = kept_on(value.device.type, torch.float64)
    number = dist.local_part(value).detach().reshape(()).to(dtype, copy=True)
    return number.as_subclass(torch.Tensor)
