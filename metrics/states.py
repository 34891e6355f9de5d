"""What a metric declares about each thing it accumulates, and how such a state is begun, moved and merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch

ReductionName: TypeAlias = Literal["sum", "mean", "max", "min", "cat", "none"]
StateReduction: TypeAlias = ReductionName | Callable[[Any], Any]
StateValue: TypeAlias = torch.Tensor | list[Any] | int
"""A tensor; a list of tensors under "cat"; a Python number for what is counted on the host."""

UNKNOWN_SHAPE = torch.Size([0])
"""The shape of a state before the first batch, if only the data determine it."""
ARITHMETIC = ("sum", "mean", "max", "min")
"""Reductions that combine the values of the ranks element by element."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One state: its value at reset, and how the values of the ranks become one."""

    default: torch.Tensor
    reduction: StateReduction
    counter: bool = False
    """The state is a Python int."""
    listed: bool = False
    """The state is a list that updates append to."""
    fixed: bool = True
    """Shape and dtype are those of the default, unless that has the shape (0,)."""

    @classmethod
    def of(cls, default: torch.Tensor | int, reduction: StateReduction) -> Declaration:
        """Raises ValueError for a default that does not fit the reduction, TypeError if it is neither a tensor nor an
        int.
        """
        if not callable(reduction) and reduction not in get_args(ReductionName):
            raise ValueError(
                f"a state is reduced by one of {', '.join(get_args(ReductionName))}, or by a function of the values of "
                f"the ranks, stacked; but got {reduction!r}"
            )
        if isinstance(default, bool) or not isinstance(default, torch.Tensor | int):
            raise TypeError(
                f"the default of a state must be a tensor or a whole number, but is {default!r}; write "
                'torch.tensor(0.0) or, under "cat", torch.empty(0) of the dtype of what is appended'
            )
        counter = isinstance(default, int)
        tensor = torch.as_tensor(default).detach().clone()
        if counter and reduction not in ("sum", "max", "min"):
            raise ValueError(f"a state that is a whole number is reduced by sum, max or min, but got {reduction!r}")
        if reduction == "cat" and (tensor.ndim == 0 or len(tensor) > 0):
            raise ValueError(f'a state reduced by "cat" begins empty, as torch.empty(0), but its default is {tensor}')
        if reduction in ARITHMETIC and tensor.dtype == torch.bool:
            raise ValueError(f"a state reduced by {reduction!r} can't be of torch.bool; use torch.int64")
        if reduction == "mean" and not tensor.is_floating_point():
            raise ValueError(f'a state reduced by "mean" needs a floating default, but found {default}')
        if reduction == "sum" and bool(tensor.any()):
            raise ValueError(
                f'a state reduced by "sum" begins with zeros, since every rank adds its own, but found {default}'
            )
        return cls(tensor, reduction, counter, listed=reduction == "cat")

    @property
    def arithmetic(self) -> bool:
        """The values of the ranks are combined element by element."""
        return self.reduction in ARITHMETIC

    @property
    def shaped_by_data(self) -> bool:
        """Its shape is not known before the first batch (the number of classes, say)."""
        return self.arithmetic and not self.counter and (not self.fixed or self.default.shape == UNKNOWN_SHAPE)

    @property
    def starts_from_zero(self) -> bool:
        """The default adds nothing to a sum."""
        return not bool(self.default.any())

    @property
    def mergeable(self) -> bool:
        """The values of several ranks make one value of the same kind, with which updates can go on."""
        return self.reduction in ("sum", "max", "min", "cat")

    def begin(self, default: torch.Tensor) -> StateValue:
        """The state after a reset; `default` is this declaration's, on the device of the data."""
        if self.counter:
            return int(self.default)
        if self.listed:
            return [default] if self.fixed else []
        return default.clone()

    def neutral(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """What a rank without data contributes to the reduction of a state that has this shape on other ranks."""
        if self.reduction in ("sum", "mean"):
            return torch.zeros(shape, dtype=dtype)
        if dtype.is_floating_point:
            return torch.full(shape, -torch.inf if self.reduction == "max" else torch.inf, dtype=dtype)
        if dtype == torch.bool:
            return torch.full(shape, self.reduction == "min", dtype=dtype)
        info = torch.iinfo(dtype)
        return torch.full(shape, info.min if self.reduction == "max" else info.max, dtype=dtype)

    def merge(self, values: Sequence[torch.Tensor | int]) -> torch.Tensor | int:
        """Merges the values that several ranks saved, leaving out those of ranks without data."""
        if self.counter:
            counts = [int(value) for value in values]
            return sum(counts) if self.reduction == "sum" else max(counts) if self.reduction == "max" else min(counts)
        tensors = [torch.as_tensor(value) for value in values]
        if self.reduction == "cat":
            # An empty state has the shape (0,), whatever the others have.
            return torch.cat([tensor for tensor in tensors if tensor.numel()] or tensors[:1])
        if self.shaped_by_data:
            tensors = [tensor for tensor in tensors if tensor.shape != UNKNOWN_SHAPE] or tensors[:1]
        stacked = torch.stack(tensors)
        if self.reduction == "sum":
            return stacked.sum(0, dtype=stacked.dtype)
        return stacked.amax(0) if self.reduction == "max" else stacked.amin(0)


def as_tensor(state: StateValue) -> torch.Tensor:
    """A state as one tensor, whichever of its forms it has."""
    return torch.cat(state) if isinstance(state, list) else torch.as_tensor(state)


def moved(
    tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None, *, copy: bool = False
) -> torch.Tensor:
    """The tensor on a device; in float32 for float64 where the device has none."""
    dtype = kept_on(device.type, tensor.dtype if dtype is None else dtype)
    return tensor.to(device, dtype, copy=copy)


def kept_on(device: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a kind of device keeps what is in this one: Apple's mps has no float64, and a TPU has it only
    in software, many times as slow.
    """
    return torch.float32 if dtype == torch.float64 and device in ("mps", "xla") else dtype


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Counts as floats that hold them exactly (up to 2**53; on mps and xla 2**24)."""
    return moved(tensor, tensor.device, torch.float64)
