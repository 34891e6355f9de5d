"""Curves drawn by matplotlib, which is imported only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leyden.handlers.common.packages import require_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def new_axes() -> Any:
    """Axes on a figure of their own. Raises ModuleNotFoundError without matplotlib."""
    require_package("matplotlib", "plot", "plot()")
    from matplotlib import pyplot

    return pyplot.subplots()[1]


def draw(
    curves: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str, axes: Axes | None = None
) -> Axes:
    """Draws curves by their names, "" for one that needs none. Raises ModuleNotFoundError without matplotlib."""
    if axes is None:
        axes = new_axes()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name or None)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if any(curves):
        axes.legend()
    return axes
