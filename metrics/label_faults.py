"""What can be wrong with labels and scores, noticed without waiting for the device."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch


class Fault(IntEnum):
    """Each has its index in the state that counts them; 0 is for labels that are left out."""

    NAN = 1
    SCORE = 2
    CLASS = 3
    BINARY_Y = 4
    BINARY_Y_PRED = 5
    ONE_HOT = 6


PLACES = 1 + len(Fault)


class Found(NamedTuple):
    """A fault, the elements that have it, and the values among which they are."""

    fault: Fault
    where: torch.Tensor
    values: torch.Tensor

    def example(self) -> float:
        """One of the values; waits for the device."""
        where, values = torch.broadcast_tensors(self.where, self.values)
        value: float = values[where].reshape(-1)[0].item()
        return value


def message(fault: Fault, who: str, found: str, classes: int, threshold: float, ignore_index: int | None) -> str:
    """The message for a fault; `found` is a value, or "values" if reading one would have meant waiting for the
    device.
    """
    ignored = f"labels to be left out are marked by ignore_index (now {ignore_index})"
    known = f"none of the classes 0, ..., {classes - 1}" if classes > 0 else "no class"
    return {
        Fault.NAN: f"{who} found NaN among the scores in y_pred, for which there is no prediction: the model's numbers "
        "are lost (TerminateOnNan ends a training in which that happens)",
        Fault.SCORE: f"{who} found {found} in y_pred, outside of 0, ..., 1, but a floating y_pred of the shape of y is "
        f"cut at threshold={threshold:g}, as probabilities are. For logits give {who}(threshold=0.0), or a sigmoid as "
        "output_transform; class indices are whole numbers, y_pred.long()",
        Fault.CLASS: f"{who} found {found} in y, {known}; {ignored}",
        Fault.BINARY_Y: f"{who} found {found} in y, but y_pred and y of one shape are binary, 0 or 1; for more classes "
        "y_pred needs scores (N, C, ...), or one_hot(y_pred, C) for what is class indices already, and y class indices "
        f"(N, ...), whole numbers; {ignored}",
        Fault.BINARY_Y_PRED: f"{who} found {found} in y_pred, but y_pred and y of one shape are binary, 0 or 1; for "
        "more classes y_pred needs scores (N, C, ...), as one_hot(y_pred, C) gives",
        Fault.ONE_HOT: f"{who} found a y of the shape of y_pred whose classes (dimension 1) always sum to 1, as "
        "one-hot or smoothed targets do; each element would count for itself. Give class indices: y.argmax(1), and "
        "scores (N, C, ...) as y_pred",
    }[fault]


def can_look_at(tensor: torch.Tensor) -> bool:
    """Whether its values can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def outside(values: torch.Tensor, low: float, high: float | None = None) -> torch.Tensor:
    """Where values are below `low` or above `high`."""
    below = values < low
    return below if high is None else below | (values > high)


def within(values: torch.Tensor, low: float, high: float) -> bool:
    """Whether all values, which can be read without waiting, are numbers from `low` to `high`."""
    if values.numel() == 0 or values.dtype == torch.bool:
        return True
    least, greatest = values.aminmax()
    return bool(least.item() >= low and greatest.item() <= high)


def not_binary(values: torch.Tensor) -> torch.Tensor:
    """Where values are neither 0 nor 1."""
    return (values != 0) & (values != 1)


def looks_one_hot(y: torch.Tensor) -> torch.Tensor:
    """Whether y (N, C, ...) sums to 1 over the classes everywhere: a scalar."""
    return ((y.sum(1, dtype=torch.float32) - 1).abs() < 1e-3).all()
