"""What is logged: numbers and images at steps, parameters; how a run ended; what is still on its way, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Value:
    """A number at a step; `time` in seconds since 1970."""

    name: str
    number: float
    step: int
    time: float


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An image at a step; `pixels`: uint8 (H, W), (H, W, 3) or (H, W, 4); `time` in seconds since 1970."""

    name: str
    pixels: np.ndarray
    step: int
    time: float


LogEntry: TypeAlias = Value | Image | tuple[str, str]
"""A value, an image, or a parameter: its name and text."""


def name_of(entry: LogEntry) -> str:
    """Of any of them."""
    return entry[0] if isinstance(entry, tuple) else entry.name


class Ending(Enum):
    """How a run of the engine ended."""

    FINISHED = "finished"
    """By its limits or by `terminate`."""
    STOPPED = "stopped"
    """By `interrupt`, Ctrl-C, an exit or a search that pruned it: it may be continued, or was given up."""
    FAILED = "failed"
    """By an exception."""


def ending_by(error: BaseException) -> Ending:
    """Of a run that an exception ended.

    A search that gives up a trial (optuna, ...) says so by an exception named for it, `TrialPruned`: no failure.
    """
    pruned = any("Pruned" in kind.__name__ for kind in type(error).__mro__)
    return Ending.STOPPED if pruned or not isinstance(error, Exception) else Ending.FAILED


def to_state(entries: Sequence[LogEntry]) -> dict[str, Any]:
    """As plain data, by columns, which stays compact for many values; of images, if there are any, each."""
    values = [entry for entry in entries if isinstance(entry, Value)]
    images = [
        {"name": entry.name, "pixels": torch.from_numpy(entry.pixels), "step": entry.step, "time": entry.time}
        for entry in entries
        if isinstance(entry, Image)
    ]
    return {
        "names": [value.name for value in values],
        "numbers": [value.number for value in values],
        "steps": [value.step for value in values],
        "times": [value.time for value in values],
        "params": dict(entry for entry in entries if isinstance(entry, tuple)),
    } | ({"images": images} if images else {})


def entries_of(state: Mapping[str, Any]) -> list[LogEntry]:
    """The entries again."""
    if not state:
        return []
    columns = (state["names"], state["numbers"], state["steps"], state["times"])
    images = [Image(**each | {"pixels": each["pixels"].cpu().numpy()}) for each in state.get("images", ())]
    return [*state["params"].items(), *(Value(*row) for row in zip(*columns, strict=True)), *images]
