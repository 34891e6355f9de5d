"""How often to show something: by the clock, though only iterations are seen."""

from __future__ import annotations

import time


class Pace:
    """Says after how many more iterations it will be `seconds` since the last showing.

    From one question to the next the answer at most doubles: a few quick steps are no reason to look away for long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._steps = 1
        self._asked_at = self._shown_at = time.monotonic()
        self._iteration = 0

    def begin(self, iteration: int) -> None:
        """Counts from here: an epoch begins."""
        self._iteration = iteration
        self._asked_at = time.monotonic()

    def is_time(self) -> bool:
        """True if it is time to show; then it counts as shown."""
        now = time.monotonic()
        if now - self._shown_at < 0.9 * self.seconds:
            return False
        self._shown_at = now
        return True

    def steps(self, iteration: int) -> int:
        """Iterations until it is worth to ask `is_time` again."""
        now = time.monotonic()
        a_step = max(now - self._asked_at, 1e-7) / max(iteration - self._iteration, 1)
        left = max(self._shown_at + self.seconds - now, 0)
        self._steps = max(1, min(2 * self._steps, round(left / a_step)))
        self._asked_at, self._iteration = now, iteration
        return self._steps
