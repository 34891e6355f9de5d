"""One state of one metric on its way through the reduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from leyden import distributed as dist
from leyden.metrics.packing import from_order, in_order
from leyden.metrics.states import UNKNOWN_SHAPE, Declaration, StateValue, moved

if TYPE_CHECKING:
    from leyden.metrics.base import Metric


@dataclass(slots=True, eq=False)
class Item:
    """What this rank has of a state, and then what all have.

    parts: the values of this rank, with how many updates each has seen: its own, and those that it carries for ranks of
    an earlier run.
    """

    metric: Metric
    name: str
    declaration: Declaration
    parts: list[tuple[StateValue, int]]
    home: torch.device
    """Where the reduced state is wanted."""
    local: torch.Tensor = field(init=False)
    """This rank's contribution, where the reduction is arithmetic."""
    weight: int = 0
    """How many updates that has seen."""
    done: bool = False
    reduced: Any = None
    _sums: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def all_of(cls, metric: Metric) -> list[Item]:
        """Those of a metric, in the order in which they were declared."""
        contributions = metric.contributions()
        return [cls._of(metric, name, declaration, contributions) for name, declaration in metric.declarations.items()]

    @classmethod
    def _of(
        cls, metric: Metric, name: str, declaration: Declaration, contributions: Sequence[Mapping[str, StateValue]]
    ) -> Item:
        parts = [(states[name], metric.updates_of(name, states)) for states in contributions]
        item = cls(metric, name, declaration, parts, torch.device("cpu") if metric.on_host(name) else dist.device())
        if declaration.arithmetic:
            item._combine()
        return item

    def describe(self) -> str:
        return self.metric.describe_state(self.name)

    # -- what this rank gives ------------------------------------------------------------------------------------------

    @property
    def without_data(self) -> bool:
        """Neither shape nor dtype are known here, since no data came."""
        declaration = self.declaration
        return self.local.shape == UNKNOWN_SHAPE if declaration.fixed else self.weight == 0

    @property
    def foreseen(self) -> torch.Tensor | None:
        """Of a greatest or least value, what can be compared before the shapes are known; None if nothing can be."""
        if (shape := self.declaration.default.shape) == UNKNOWN_SHAPE:
            return None
        fits = self.local.shape == shape and not (self.declaration.shaped_by_data and self.without_data)
        return self.local if fits else moved(self.declaration.neutral(shape, self.local.dtype), dist.device())

    def take_shape(self, shape: torch.Size, dtype: torch.dtype) -> None:
        """The shape and dtype that the state has on the ranks with data."""
        if self.without_data:
            self.local = moved(self.declaration.neutral(shape, dtype), dist.device())
        elif self.local.dtype != dtype:
            self.local = self.local.to(dtype)

    def in_order(self, values: torch.Tensor | None) -> torch.Tensor:
        """Whole numbers, the greatest of which is wanted."""
        assert values is not None
        flat = values.reshape(-1)
        if self.declaration.reduction == "max":
            return in_order(flat)
        return in_order(torch.where(flat.isnan(), flat, -flat)) if flat.is_floating_point() else ~flat.to(torch.int64)

    def summands(self) -> list[torch.Tensor]:
        """What is added up, as int64 or in the widest floats; of a mean first the updates, by which it is weighed."""
        if self.declaration.reduction == "mean":
            return [_wide(torch.tensor(self.weight)), _wide(self.local)]
        return [_wide(torch.view_as_real(self.local) if self.local.is_complex() else self.local)]

    def gathered(self) -> list[Any]:
        """What is gathered: tensors, or whatever else is in a list."""
        found: list[Any] = []
        for value, weight in self.parts:
            if isinstance(value, list):
                found += value
            elif weight > 0 or self.declaration.reduction == "cat":
                found.append(torch.as_tensor(value))
        found = [each.detach() if isinstance(each, torch.Tensor) else each for each in found]
        if self.declaration.fixed:
            found = [each.to(self.declaration.default.dtype) for each in found]
        if self.declaration.reduction == "cat":
            found = [each.reshape(1) if each.ndim == 0 else each for each in found]
            kept = [each for each in found if each.shape != UNKNOWN_SHAPE]
            found = [torch.cat(kept)] if kept else []
        return found

    def _combine(self) -> None:
        device, declaration = dist.device(), self.declaration
        dtype = declaration.default.dtype if declaration.fixed else None
        with_data = [part for part in self.parts if part[1] > 0] or self.parts[:1]
        parts = with_data if declaration.shaped_by_data or declaration.reduction == "mean" else self.parts
        tensors = [moved(torch.as_tensor(value).detach(), device, dtype) for value, _ in parts]
        if declaration.reduction == "sum" and not declaration.fixed:
            # As torch.sum does: small whole numbers would not hold the sum, nor truths how many there are.
            tensors = [
                each if each.is_floating_point() or each.is_complex() else each.to(torch.int64) for each in tensors
            ]
        self.weight = sum(weight for _, weight in parts)
        if declaration.reduction == "mean":
            weights = [weight if self.weight else 1 for _, weight in parts]
            self.local = sum(each * weight for each, weight in zip(tensors, weights, strict=True))  # type: ignore[assignment]
            return
        if declaration.reduction == "sum" and not declaration.fixed and not declaration.starts_from_zero:
            tensors = [each - declaration.default.to(each) for each in tensors]
        if len(tensors) == 1:
            (self.local,) = tensors
            return
        filled = [each for each in tensors if each.shape != UNKNOWN_SHAPE] or tensors[:1]
        stacked = torch.stack(filled)
        if declaration.reduction == "sum":
            self.local = stacked.sum(0, dtype=stacked.dtype)
        else:
            self.local = stacked.amax(0) if declaration.reduction == "max" else stacked.amin(0)

    # -- what all ranks gave -------------------------------------------------------------------------------------------

    def finish_alone(self) -> None:
        """What this rank gives is all there is."""
        if not self.declaration.arithmetic:
            self.finish_gathered([self.gathered()])
        elif self.declaration.reduction in ("max", "min"):
            self.reduced = self.local
        else:
            self._sums = self.summands()
            self.finish_sum()

    def take_sum(self, total: torch.Tensor) -> None:
        self._sums.append(total)

    def finish_sum(self) -> None:
        """From the sums that were taken; whole numbers come before floats."""
        dtype = self.local.dtype
        if self.declaration.reduction == "mean":
            updates, total = self._sums
            mean, default = total / updates.clamp(min=1), self.declaration.default.to(total)
            # Of a shape that only the data tell there are updates.
            self.reduced = (torch.where(updates > 0, mean, default) if default.shape == mean.shape else mean).to(dtype)
            return
        (total,) = self._sums
        self.reduced = (torch.view_as_complex(total) if dtype.is_complex else total).to(dtype)
        if not self.declaration.fixed and not self.declaration.starts_from_zero:
            self.reduced = self.reduced + self.declaration.default.to(self.reduced)

    def finish_order(self, greatest: torch.Tensor, shape: torch.Size) -> None:
        dtype = self.local.dtype
        if self.declaration.reduction == "max":
            values = from_order(greatest, dtype)
        elif dtype.is_floating_point:
            values = from_order(greatest, dtype)
            values = torch.where(values.isnan(), values, -values)
        else:
            values = (~greatest).to(dtype)
        self.reduced, self.done = values.view(shape), True

    def finish_gathered(self, of_ranks: Sequence[list[Any]]) -> None:
        everything = [each for found in of_ranks for each in found]
        reduction, declaration = self.declaration.reduction, self.declaration
        if reduction == "cat":
            self._check_alike(of_ranks, start=1)
            if everything:
                joined = torch.cat(everything)
                self.reduced = [joined] if declaration.listed else joined
            else:
                self.reduced = declaration.begin(declaration.default.to(self.home))
        elif declaration.listed:
            self.reduced = reduction(everything) if callable(reduction) and everything else everything
        elif not everything:
            self.reduced = declaration.default.to(self.home)
        else:
            self._check_alike(of_ranks, start=0)
            if callable(reduction):
                self.reduced = reduction(torch.stack(everything))
            else:
                self.reduced = torch.stack(everything) if len(everything) > 1 else everything[0]

    def state(self) -> StateValue:
        """The reduced value in the form that the metric knows."""
        if self.declaration.counter:
            return int(self.reduced)
        value: StateValue = self.reduced
        return value.to(self.home) if isinstance(value, torch.Tensor) else value

    def _check_alike(self, of_ranks: Sequence[list[Any]], start: int) -> None:
        full = [each for found in of_ranks for each in found]
        if any(
            each.dtype != full[0].dtype or each.ndim != full[0].ndim or each.shape[start:] != full[0].shape[start:]
            for each in full
        ):
            raise differing(self, [[tuple(each.shape) for each in found] for found in of_ranks])


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return moved(tensor, dist.device(), torch.float64 if tensor.is_floating_point() else torch.int64)


def differing(item: Item, shapes: Sequence[Sequence[tuple[int, ...]]]) -> ValueError:
    """The error for a state whose values on the ranks don't fit together; `shapes` by rank."""
    found = "; ".join(
        f"rank {rank}: {', '.join(str(list(shape)) for shape in mine) or 'none'}" for rank, mine in enumerate(shapes)
    )
    return ValueError(
        f"the state {item.describe()} has different shapes on the ranks, so it can't be reduced: {found}. "
        "All ranks need outputs of the same kind and number of classes"
    )
