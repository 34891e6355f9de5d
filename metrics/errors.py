"""What a metric raises when there is nothing to compute from."""

from __future__ import annotations


class NotComputableError(RuntimeError):
    """A metric was asked for its value before it had seen a sample."""


def require_samples(metric: object, samples: int) -> None:
    """Raises NotComputableError if the metric has seen no sample."""
    if samples == 0:
        raise NotComputableError(
            f"{type(metric).__name__} has seen no sample, so it has no value: update() with a batch comes before "
            "compute(), and an epoch needs at least one batch on some rank"
        )
