"""Ignite's Fbeta, a metric derived from a precision and a recall."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from leyden.metrics import Derived, OutputTransform, Precision, Recall


def Fbeta(
    beta: float,
    average: bool = True,
    precision: Precision | None = None,
    recall: Recall | None = None,
    output_transform: OutputTransform | None = None,
    device: str | torch.device | None = None,
) -> Derived:
    """The F score by class, or with `average` the mean of these; leyden's own is `FBeta(beta, average=...)`.

    Raises ValueError for a beta that is not above 0, for a precision or recall that is averaged, and where one is given
    beside an output_transform or a device.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, but is {beta}")
    for name, given in (("precision", precision), ("recall", recall)):
        if given is None:
            continue
        if output_transform is not None or device is not None:
            raise ValueError(f"Fbeta takes {name}=, or output_transform= and device=; give these to the {name}")
        if given.average:
            raise ValueError(f"Fbeta needs a {name} by class, average=False, but found average={given.average!r}")
    options: dict[str, Any] = {"output_transform": output_transform, "average": False, "device": device}
    precision = Precision(**options) if precision is None else precision
    recall = Recall(**options) if recall is None else recall
    return Derived(partial(_f_score, beta**2, average), precision, recall)


def _f_score(square: float, average: bool, precision: torch.Tensor, recall: torch.Tensor) -> torch.Tensor:
    by_class = (1 + square) * precision * recall / (square * precision + recall + 1e-15)
    return by_class.mean() if average else by_class
