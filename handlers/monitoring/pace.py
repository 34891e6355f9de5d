"""How often to show something: by the clock, though only iterations are seen."""

from __future__ import annotations

import time


class Pace:
    """Estimates after how many more iterations `seconds` will have passed since something was shown. The answer at most
    doubles from one call to the next: a few quick steps are no reason to look away for long.
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
        """True if it is time to show something, which then counts as shown."""
        now = time.monotonic()
        if now - self._shown_at < 0.9 * self.seconds:
            return False
        self._shown_at = now
        return True

    def steps(self, iteration: int) -> int:
        """The number of iterations until it is worth asking `is_time` again."""
        now = time.monotonic()
        a_step = max(now - self._asked_at, 1e-7) / max(iteration - self._iteration, 1)
        left = max(self._shown_at + self.seconds - now, 0)
        self._steps = max(1, min(2 * self._steps, round(left / a_step)))
        self._asked_at, self._iteration = now, iteration
        return self._steps
