"""Which checkpoints stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leyden.handlers.checkpoint.directory import Entry


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
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise ValueError(
                    f"Checkpoint keeps at least 1 checkpoint, or all by keep=None, but got {name}={count!r}"
                )
        if self.keep_best is not None and self.best is None:
            raise ValueError(f"Checkpoint keeps the {self.keep_best} best by a metric: best= names it")
        if self.keep_best is not None and self.keep is None:
            raise ValueError(f"keep=None keeps all, and keep_best={self.keep_best} not; give only one of them")

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

    def to_remove(self, entries: Sequence[Entry]) -> list[Entry]:
        """Of checkpoints, oldest first, those that need not stay."""
        if self.keep is None or not entries:
            return []
        last = self.keep if self.best is None or self.keep_best is not None else 1
        best = self.keep if self.keep_best is None else self.keep_best
        paths = {entry.path for entry in (*self.ranked(entries)[:best], *entries[-last:])}
        return [entry for entry in entries if entry.path not in paths]
