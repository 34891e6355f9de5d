"""Batches that grow, or shrink, with the epochs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from leyden.engine import DataStage, Engine, Events
from leyden.engine.data import known_length
from leyden.handlers.common.number_checks import require_epochs
from leyden.handlers.common.plans import warn_if_beyond
from leyden.handlers.data.batch_size import check_batch_size, with_batch_size
from leyden.handlers.training.shapes import Shape


class BatchSizeSchedule:
    """Changes the loader's batch size from epoch to epoch: {epoch: size}, each from that epoch on, or a shape.

    Epochs are counted from 1; a shape begins, at its count 0, with the first, and its values are rounded. Before the
    first epoch of a mapping the loader has its own size. In replicas (`DataParallel`) it is the size on each rank. With
    the size the length of the epoch changes, and `state.epoch_length` with it, unless the user fixed that (then a new
    size begins the data anew). The size hangs on the epoch alone, so nothing has to be saved.

    The data has to be a torch DataLoader that batches by itself (see `with_batch_size`). Raises TypeError or ValueError
    for what is no epoch or no size, for a second one on the engine, and, when the run starts, for other data or too
    little of it for a batch.
    """

    same_on_ranks = ("sizes",)

    def __init__(self, sizes: Mapping[int, int] | Shape) -> None:
        if not isinstance(sizes, Mapping | Shape) or (isinstance(sizes, Mapping) and not sizes):
            raise TypeError(f"BatchSizeSchedule takes {{epoch: size}} or a shape of the epoch, but got {sizes!r}")
        if isinstance(sizes, Mapping):
            require_epochs("the plan of BatchSizeSchedule", sizes)
            for size in sizes.values():
                check_batch_size(size)
            sizes = {int(epoch): int(size) for epoch, size in sizes.items()}
        self.sizes = sizes if isinstance(sizes, Shape) else dict(sorted(sizes.items()))
        self._made: int | None = None  # the size that the data has now

    def size_at(self, epoch: int) -> int | None:
        """The batch size of an epoch, counted from 1; None for the loader's own. Raises ValueError if it is below 1."""
        if isinstance(self.sizes, Shape):
            size = round(self.sizes(epoch - 1))
            check_batch_size(size)
            return size
        return next((size for begin, size in reversed(self.sizes.items()) if begin <= epoch), None)

    def attach(self, engine: Engine[Any, Any]) -> None:
        engine.data_setup.add(
            DataStage.BATCH,
            functools.partial(self._change, engine),
            owner=self,
            outdated=lambda: self.size_at(_epoch_of(engine)) != self._made,
        )

        if not isinstance(self.sizes, Shape):
            engine.add_event_handler(Events.STARTED, self._check_reach)

    def _check_reach(self, engine: Engine[Any, Any]) -> None:
        assert not isinstance(self.sizes, Shape)
        last = max(self.sizes)
        warn_if_beyond(engine, "BatchSizeSchedule has a size for", last, "it never comes")

    def refuses(self, other: Any) -> str | None:
        return "both set the size of batches; attach only one" if isinstance(other, BatchSizeSchedule) else None

    def _change(self, engine: Engine[Any, Any], data: Any) -> Any:
        size = self._made = self.size_at(_epoch_of(engine))
        # All sizes are tried now: what can't be batched so is told before the first epoch.
        for tried in [size] if isinstance(self.sizes, Shape) else self.sizes.values():
            if tried is not None and known_length(with_batch_size(data, tried)) == 0:
                raise ValueError(
                    f"BatchSizeSchedule asks for batches of {tried}, of which the data of the run has none "
                    f"({len(data.dataset)} samples, drop_last={data.drop_last}); give smaller sizes or drop_last=False"
                )
        return data if size is None else with_batch_size(data, size)


def _epoch_of(engine: Engine[Any, Any]) -> int:
    """The epoch that runs or, between two, the last one, whose data may go on; counted from 1."""
    return max(engine.state.epoch, 1)
