"""What a step of a training loop costs: the calls that it makes, and its time."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from _loops import Batch, Batches, Loop, Maker
from _measure import Calls, no_collection

COUNTED_STEPS = (100, 300)
TIMED_STEPS, TIMED_REPEATS = 300, 5


class Clocked(Batches):
    """Notes when the batches after the first tenth begin and when the last one is asked for."""

    begun_at = ended_at = 0.0

    def __iter__(self) -> Iterator[Batch]:
        first = len(self.batches) // 10
        yield from self.batches[:first]
        self.begun_at = time.perf_counter()
        yield from self.batches[first:-1]
        self.ended_at = time.perf_counter()
        yield self.batches[-1]

    @property
    def seconds_a_step(self) -> float:
        return (self.ended_at - self.begun_at) / (len(self.batches) - 1 - len(self.batches) // 10)


class Terminal(io.StringIO):
    """Takes what progress bars draw, as a terminal would."""

    def isatty(self) -> bool:
        return True


@contextmanager
def quiet() -> Iterator[None]:
    """What is printed is not shown."""
    with redirect_stdout(Terminal()), redirect_stderr(Terminal()):
        yield


@contextmanager
def making(folder: Path) -> Iterator[Callable[[Maker], Loop]]:
    """Makes loops that each have a folder of their own; what they print is not shown."""
    numbers = count()
    with quiet():
        yield lambda maker: maker(folder / str(next(numbers)))


class StepCalls(NamedTuple):
    """Calls of one step: by function in the training thread, their sum, and those in other threads."""

    by_function: dict[str, float]
    total: float
    elsewhere: float


def calls_a_step(maker: Maker, folder: Path) -> StepCalls:
    """Calls of a step: the difference of a short and a longer run, so that what a run does once is left out."""
    with making(folder) as make:
        make(maker)(Batches(COUNTED_STEPS[0]))  # imports and caches
        short, long = (Calls(partial(make(maker), Batches(steps))) for steps in COUNTED_STEPS)
    steps = COUNTED_STEPS[1] - COUNTED_STEPS[0]
    by_function = Counter(long.here)
    by_function.subtract(short.here)
    return StepCalls(
        {name: number / steps for name, number in by_function.most_common() if number},
        by_function.total() / steps,
        (long.elsewhere - short.elsewhere) / steps,
    )


def microseconds_a_step(makers: Mapping[str, Maker], folder: Path) -> dict[str, float]:
    """The best of several runs of each loop, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    with making(folder) as make:
        for _ in range(TIMED_REPEATS):
            with no_collection():
                for name, maker in makers.items():
                    data = Clocked(TIMED_STEPS)
                    make(maker)(data)
                    seconds[name].append(data.seconds_a_step)
    return {name: min(each) * 1e6 for name, each in seconds.items()}
