"""What stands before the data of a run and changes how its batches come."""

from __future__ import annotations

from typing import Any

from leyden.engine.data import DataLayer


class WrappedData(DataLayer):
    """Data that is iterated otherwise; its length, where it has one, and its other attributes are its own."""

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
