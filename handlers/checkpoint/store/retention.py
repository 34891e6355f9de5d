"""Which checkpoints stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leyden.engine.values import as_whole
from leyden.handlers.checkpoint.store.directory import Entry


@dataclass(frozen=True)
class Keeping:
    """How many checkpoints stay: the `keep` last; with `best`, the name of a metric, the `keep` best and the newest,
    or with `keep_best` the `keep_best` best and the `keep` last. keep=None: all.
    """

    keep: int | None
    best: str | None = None
    mode: str = "max"
    keep_best: int | None = None

    def check(self) -> None:
        """Raises ValueError for what contradicts itself."""
        if self.mode not in ("max", "min"):
            raise ValueError(f'Checkpoint needs mode "max" or "min", but got {self.mode!r}')
        for name, count in (("keep", self.keep), ("keep_best", self.keep_best)):
            if count is not None and ((whole := as_whole(count)) is None or whole < 1):
                raise ValueError(
                    f"Checkpoint keeps at least 1 checkpoint, or all by keep=None, but got {name}={count!r}"
                )
        if self.keep_best is not None and self.best is None:
            raise ValueError(f"Checkpoint keeps the {self.keep_best} best by a metric: best= names it")
        if self.keep_best is not None and self.keep is None:
            raise ValueError(f"keep=None keeps all, and keep_best={self.keep_best} not; give only one of them")

    def describe(self) -> str:
        """Which stay, in words: 'the 3 best by "val/accuracy" and the newest'."""
        if self.keep is None:
            return "all of them"
        newest = "the newest" if self.keep == 1 else f"the {self.keep} newest"
        if self.best is None:
            return newest
        best = self.keep if self.keep_best is None else self.keep_best
        best_ones = f'the {"" if best == 1 else f"{best} "}best by "{self.best}"'
        return f"{best_ones} and {'the newest' if self.keep_best is None else newest}"

    def ranked(self, entries: Sequence[Entry]) -> list[Entry]:
        """The checkpoints by a metric that was new in them, the best first and the older of equals first; NaN never
        counts.
        """
        if self.best is None:
            return []
        sign = -1 if self.mode == "max" else 1
        scored = [
            (sign * entry.manifest.metrics[self.best], entry.manifest.serial, entry)
            for entry in entries
            if self.best in entry.manifest.scored and not math.isnan(entry.manifest.metrics[self.best])
        ]
        return [entry for *_, entry in sorted(scored, key=lambda item: item[:2])]

    def would_be_best(self, value: float, entries: Sequence[Entry]) -> bool:
        """Whether a checkpoint with that value of the metric would be among those that stay as the best."""
        if self.best is None or math.isnan(value):
            return False
        ranked = self.ranked(entries)[: self._best]
        if len(ranked) < self._best:
            return True
        last = ranked[-1].manifest.metrics[self.best]
        return value > last if self.mode == "max" else value < last

    @property
    def _best(self) -> int:
        """How many stay as the best, or count as such where all stay."""
        return self.keep_best or self.keep or 1

    def to_remove(self, entries: Sequence[Entry]) -> list[Entry]:
        """Of checkpoints, oldest first, those that need not stay."""
        if self.keep is None or not entries:
            return []
        replaced = [entry for place, entry in enumerate(entries) if _is_replaced(entry, entries[place + 1 :])]
        entries = [entry for entry in entries if entry not in replaced]
        last = self.keep if self.best is None or self.keep_best is not None else 1
        paths = {entry.path for entry in (*self.ranked(entries)[: self._best], *entries[-last:])}
        return replaced + [entry for entry in entries if entry.path not in paths]


def _is_replaced(entry: Entry, later: Sequence[Entry]) -> bool:
    """A later save of the same iteration has all that counts of this one, which a crash kept from being deleted."""
    scores = {name: entry.manifest.metrics[name] for name in entry.manifest.scored}
    for other in later:
        theirs = {name: other.manifest.metrics[name] for name in other.manifest.scored}
        same = all(
            getattr(other.manifest, count) == getattr(entry.manifest, count) for count in ("epoch", "iteration", "step")
        )
        if same and scores.items() <= theirs.items():
            return True
    return False
