"""Ignite's stopwatch between events."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from leyden.engine import Engine, Events


class Timer:
    """Measures the seconds between events; `average=True`: their mean over the calls of `step`."""

    def __init__(self, average: bool = False) -> None:
        self._average = average
        self.reset()

    def attach(
        self,
        engine: Engine[Any, Any],
        start: Any = Events.STARTED,
        pause: Any = Events.COMPLETED,
        resume: Any = None,
        step: Any = None,
    ) -> Timer:
        """Resets it at `start`, and pauses, resumes and counts at the other events."""
        engine.add_event_handler(start, self.reset)
        engine.add_event_handler(pause, self.pause)
        if resume is not None:
            engine.add_event_handler(resume, self.resume)
        if step is not None:
            engine.add_event_handler(step, self.step)
        return self

    def reset(self, *_: Any) -> Timer:
        """Begins anew at zero, running."""
        self._began = perf_counter()
        self.total = 0.0
        self.step_count = 0.0
        self.running = True
        return self

    def pause(self, *_: Any) -> None:
        if self.running:
            self.total += perf_counter() - self._began
            self.running = False

    def resume(self, *_: Any) -> None:
        if not self.running:
            self.running = True
            self._began = perf_counter()

    def step(self, *_: Any) -> None:
        """Counts one of what the mean is over."""
        self.step_count += 1.0

    def value(self) -> float:
        """The seconds that it ran, in all or on average."""
        total = self.total + (perf_counter() - self._began if self.running else 0.0)
        return total / max(self.step_count, 1.0) if self._average else total
