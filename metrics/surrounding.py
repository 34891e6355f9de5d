"""What surrounds the `reset`, `update` and `compute` of each metric, so that they are plain functions of its states."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from leyden.metrics.outputs import full_precision

if TYPE_CHECKING:
    from leyden.metrics.base import Metric


def beginning(reset: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wraps a metric's own `reset`: afterwards no batch counts as seen."""

    @wraps(reset)
    def reset_and_begin(self: Metric) -> None:
        reset(self)
        self._begun = True
        self._updates = 0

    return reset_and_begin


def prepared(update: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Wraps a metric's own `update`: it is given a tuple in place of a mapping and detached tensors in full precision,
    and finds its states on the device of the data.
    """

    @wraps(update)
    def update_prepared(self: Metric, output: Any) -> None:
        output = self._pick(output)
        if not self._settled:
            self._settle(output)
        with full_precision():
            update(self, output)
        self._updates += 1

    return update_prepared


def checked(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wraps a metric's own `compute`: it is not called before the first update."""

    @wraps(compute)
    def compute_checked(self: Metric) -> Any:
        self._check_updated()
        return compute(self)

    return compute_checked
