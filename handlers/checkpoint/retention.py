"""Which checkpoints stay."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leyden.handlers.checkpoint.directory import Entry


def rank_by(entries: Sequence[Entry], metric: str, mode: str) -> list[Entry]:
    """The checkpoints by a metric that was new in them, the best first and the older of equals first; NaN never
    counts.
    """
    sign = -1 if mode == "max" else 1
    scored = [
        (sign * entry.manifest.metrics[metric], entry.manifest.serial, entry)
        for entry in entries
        if metric in entry.manifest.scored and not math.isnan(entry.manifest.metrics[metric])
    ]
    return [entry for *_, entry in sorted(scored, key=lambda item: item[:2])]


def to_remove(entries: Sequence[Entry], keep: int | None, best: str | None, mode: str) -> list[Entry]:
    """Of checkpoints, oldest first, those that need not stay: all but the newest and the `keep` best, or the `keep`
    last.
    """
    if keep is None or not entries:
        return []
    stay = rank_by(entries, best, mode)[:keep] if best is not None else list(entries[-keep:])
    paths = {entry.path for entry in (*stay, entries[-1])}
    return [entry for entry in entries if entry.path not in paths]
