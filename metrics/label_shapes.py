"""Labels and scores in the shapes and dtypes in which they are counted."""

from __future__ import annotations

import torch


def whole(values: torch.Tensor) -> torch.Tensor:
    """Whole numbers as int64, in which -100 is what it says; floating ones as they are."""
    return values if values.dtype == torch.int64 or values.is_floating_point() else values.to(torch.int64)


def flat(values: torch.Tensor) -> torch.Tensor:
    """One after the other, (M,)."""
    return values if values.ndim == 1 else values.reshape(-1)


def by_class(values: torch.Tensor) -> torch.Tensor:
    """(N, C, ...) as (M, C)."""
    return values if values.ndim == 2 else values.movedim(1, -1).reshape(-1, values.shape[1])
