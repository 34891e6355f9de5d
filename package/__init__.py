"""The package itself: what the rooms offer, under one name; a room is imported when a name of it is first asked for.

`from leyden import Engine` and `from leyden.engine import Engine` give the same class.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leyden.engine import *
    from leyden.handlers import *
    from leyden.metrics import *

    __version__: str

_ROOMS = ("contrib", "distributed", "engine", "handlers", "metrics")
_OFFERED_HERE = ("engine", "metrics", "handlers")  # searched in this order, so that Engine alone imports no handler


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("leyden")
    if name in _ROOMS:
        return import_module(f"leyden.{name}")
    if not name.startswith("_"):
        for room in _OFFERED_HERE:
            module = import_module(f"leyden.{room}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(
        f"leyden has no {name!r}; what it has is in leyden.engine, leyden.handlers, leyden.metrics, "
        "leyden.distributed and leyden.contrib"
    )


def __dir__() -> list[str]:
    offered = {name for room in _OFFERED_HERE for name in import_module(f"leyden.{room}").__all__}
    return sorted({"__version__", *_ROOMS, *offered})
