"""Wrappers around the data of a run that change how its batches come."""

from __future__ import annotations

from typing import Any

from leyden.engine.data import DataLayer


class WrappedData(DataLayer):
    """Data with another way of iterating; its length, if it has one, and its other attributes stay the same."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def inner_data(self) -> Any:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "data":  # asked for by pickle and copy before anything is there
            raise AttributeError(name)
        return getattr(self.data, name)
