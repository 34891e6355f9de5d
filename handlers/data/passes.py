"""Which pass over its data a run is in, so that a pass can be drawn again, in another process too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from leyden.engine import Engine, Events, Order
from leyden.handlers.data.generators import derive_seed
from leyden.handlers.parallel.dealing import Deal


class Passes:
    """The place of the present pass: the epoch in which it began, and its number among the passes begun in that epoch.

    `seed`: gives what all passes are drawn from. `fixed`: the place is always that of the first.
    """

    def __init__(self, seed: Callable[[], int]) -> None:
        self.seed = seed
        self.place = (1, 0)
        self.fixed = False

    def follow(self, engine: Engine[Any, Any]) -> None:
        """Keeps the place as the engine runs. A resumed pass keeps the one that was restored."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch, order=Order.METRICS)
        engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, self._begin_again, order=Order.METRICS)

    def _begin_epoch(self, engine: Engine[Any, Any]) -> None:
        if engine.cursor.pass_start == engine.state.iteration:  # else the pass goes on over the bounds of epochs
            self.place = (engine.state.epoch, 0)

    def _begin_again(self, engine: Engine[Any, Any]) -> None:
        epoch, number = self.place
        self.place = (epoch, number + 1) if epoch == engine.state.epoch else (engine.state.epoch, 0)


class PassSeeds:
    """The seeds of one loader's passes; `number` is its place among the loaders of the run.

    A loader that is gone through again within one pass over the data (the shorter of two, in a cycle) is drawn anew.
    """

    def __init__(self, passes: Passes, number: int, generator: torch.Generator, deal: Deal | None) -> None:
        self._passes = passes
        self._number = number
        self._generator = generator
        self._deal = deal
        self.shared: torch.Tensor | None = None
        """The seed of the present pass, where worker processes that outlive a pass can read it."""
        self.renew()

    def renew(self) -> None:
        """Forgets how often the loader was gone through."""
        self._place: tuple[int, int] | None = None
        self._repeat = 0
        self._drawn = False

    def begin(self) -> int:
        """The seed of the pass that begins now, from which the loader's own draws follow too."""
        passes = self._passes
        place = (1, 0) if passes.fixed else passes.place
        if place != self._place:
            self._place, self._repeat = place, 0
        elif self._drawn:
            self._repeat += 1
        self._drawn = False  # a loader with workers begins its first pass twice
        seed = derive_seed(passes.seed(), *place, self._number, self._repeat)
        self._generator.manual_seed(seed)
        if self._deal is not None:
            self._deal.follow(seed)
        if self.shared is not None:
            self.shared.fill_(seed)
        return seed

    def state_dict(self) -> dict[str, Any]:
        """Which passes were begun."""
        return {
            "place": None if self._place is None else list(self._place),
            "repeat": self._repeat,
            "drawn": self._drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._place = None if state["place"] is None else (state["place"][0], state["place"][1])
        self._repeat, self._drawn = state["repeat"], state["drawn"]

    def note_draw(self) -> None:
        """Notes that the pass has been drawn from, so the next one to begin is another pass."""
        self._drawn = True
