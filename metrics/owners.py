"""Which engines a metric measures. It keeps one count, so two engines would mix their numbers."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.metrics.base import Metric
    from leyden.metrics.group import MetricGroup

CURE = "each engine needs a metric of its own: make them in a function that is called once for each engine"


class Owners:
    """The groups, one for each engine, that a metric is in.

    A trainer's epoch is open while its evaluators run, so a trainer's metric can't be shared. Evaluators run one after
    the other, so they may share one, as scripts for Ignite do; if their epochs overlap, that is an error.
    """

    def __init__(self) -> None:
        self._groups: weakref.WeakKeyDictionary[MetricGroup, bool] = weakref.WeakKeyDictionary()
        self._user: weakref.ref[MetricGroup] | None = None  # of the epoch that is counted

    def __reduce__(self) -> tuple[type[Owners], tuple[()]]:
        return Owners, ()

    def attached(self) -> bool:
        """Whether a group has the metric whose engine is still there."""
        if self._groups:
            gc.collect()
        return bool(self._groups)

    def check_claim(self, group: MetricGroup, metric: Metric, *, trains: bool) -> None:
        """Raises ValueError if another engine has the metric, and one of the two trains."""
        if self._clashes(group, trains):
            gc.collect()  # engines are circles of references: one that is left behind may still be there
        if self._clashes(group, trains):
            raise ValueError(
                f"this {metric.kind} measures another engine already, and would mix the numbers of both: "
                f"{CURE}, or detach() this one from the other engine first"
            )

    def claim(self, group: MetricGroup, *, trains: bool) -> None:
        """From now on the group measures with it."""
        self._groups[group] = trains

    def _clashes(self, group: MetricGroup, trains: bool) -> bool:
        return any(trains or others for other, others in self._groups.items() if other is not group)

    def release(self, group: MetricGroup) -> None:
        self._groups.pop(group, None)

    def use(self, group: MetricGroup) -> None:
        """An epoch of the group's engine begins."""
        if len(self._groups) > 1:
            self._user = weakref.ref(group)

    def check(self, group: MetricGroup, metric: Metric) -> None:
        """Raises RuntimeError if another engine began an epoch since this group's did."""
        if len(self._groups) > 1 and self._user is not None and self._user() is not group:
            raise RuntimeError(
                f"this {metric.kind} measures two engines, and one began an epoch in the midst of the "
                f"other's, which mixed their numbers: {CURE}"
            )
