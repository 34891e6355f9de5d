"""How often a schedule steps in its run, also in one that goes on in batches of another size."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from leyden.engine import Engine, Events, Update
from leyden.engine.step import Stand, steps_to_come
from leyden.handlers.training.schedule_totals import run_counts


class PlannedCount:
    """That number, as it was known when the run began or was extended.

    Where a run goes on in batches of another size, or on another number of ranks, what it had done stays, and what is
    to come is counted in its batches.
    """

    def __init__(self, per: str, every: int) -> None:
        self.per = per
        self.every = every
        self.count: int | None = None
        self._engine: Engine[Any, Any] | None = None
        self._update: Update | None = None
        self._in_run = False
        self._stand: Stand | None = None
        """Where the run stood when it was left, with `_to_come` steps before it, in batches of the size of then."""
        self._to_come: int | None = None

    def attach(self, engine: Engine[Any, Any], update: Update | None) -> None:
        self._engine, self._update = engine, update
        engine.add_event_handler(Events.CLOSED, self._close)

    def now(self) -> int | None:
        """For the present run."""
        engine, update = self._engine, self._update
        assert engine is not None
        if (
            self.per == "step"
            and update is not None
            and self.count is not None
            and self._stand is not None
            and engine.state.iteration > 0
        ):
            to_come = steps_to_come(engine, update, self._stand)
            if to_come is not None and self._to_come is not None:
                return self.count + (to_come - self._to_come) // self.every
        return run_counts(engine, update, self.per, self.every)

    def by_pace(self, paces: Collection[str]) -> dict[str, int | None]:
        """That number, and what it would be at other paces."""
        assert self._engine is not None
        others = {per: run_counts(self._engine, self._update, per, self.every) for per in paces if per != self.per}
        return others | ({self.per: self.now()} if self.per in paces else {})

    def begin(self, count: int | None) -> None:
        """Takes it for the number of the run that begins or goes on."""
        self.count, self._in_run = count, True

    def _note(self) -> None:
        if self._in_run and self.per == "step" and self._engine is not None and self._update is not None:
            self._stand = Stand.of(self._engine)
            self._to_come = steps_to_come(self._engine, self._update, self._stand)

    def _close(self) -> None:
        self._note()
        self._in_run = False

    def state_dict(self) -> dict[str, Any]:
        self._note()
        stand = None if self._stand is None else asdict(self._stand)
        return {"counted": self.count, "to_come": self._to_come, "stand": stand}

    def take(self, state: dict[str, Any]) -> None:
        """Takes its part out of a saved state; one of an earlier version may lack it."""
        self.count, self._to_come = state.pop("counted", None), state.pop("to_come", None)
        stand = state.pop("stand", None)
        self._stand = None if stand is None else Stand(**stand)
