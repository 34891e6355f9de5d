"""To which engine a handler object is attached: what it knows of one would be mixed with that of another."""

from __future__ import annotations

import weakref
from typing import Any

MARK = "_attachment"


class Attachment:
    """The mark on an attached handler. A copy of the handler, or one that was pickled, is attached to nothing."""

    def __init__(self, engine: Any) -> None:
        self.engine = weakref.ref(engine)

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def check_unattached(handler: Any, engine: Any) -> None:
    """Raises ValueError for a handler that is attached to another engine, unless its `shareable` says that it may, or
    `refuses_second_engine` that its own attach raises.
    """
    if getattr(handler, "refuses_second_engine", False):
        return
    mark = getattr(handler, "__dict__", {}).get(MARK)
    other = mark.engine() if isinstance(mark, Attachment) else None
    if other is not None and other is not engine and not getattr(handler, "shareable", False):
        name = type(handler).__name__
        raise ValueError(
            f"this {name} is attached to another engine already, and would mix what it knows of both; make a {name} "
            "for each (a handler of your own that may serve several says so by shareable = True)"
        )


def mark_attached(handler: Any, engine: Any) -> None:
    """Notes where it is attached, on objects that can have attributes."""
    if hasattr(handler, "__dict__"):
        vars(handler)[MARK] = Attachment(engine)
