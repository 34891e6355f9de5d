"""Curved shapes, and shapes that repeat."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from leyden.handlers.training.shape_checks import check_duration, check_number, set_frozen
from leyden.handlers.training.shapes import Ramp, Shape


@dataclass(frozen=True)
class Cosine(Ramp):
    """Half a cosine from `start` to `end`: flat, steep, flat.

    torch's CosineAnnealingLR(T_max, eta_min) of the base rate is Cosine(base, eta_min, T_max). Ignite's
    CosineAnnealingScheduler(start, end, cycle_size), which jumps back after each cycle, is Cyclic(Cosine(start, end,
    cycle_size)), with stretch=m for its cycle_mult=m.
    """

    def between(self, progress: float) -> float:
        done = (1 - math.cos(math.pi * progress)) / 2
        return (1 - done) * self.start + done * self.end


@dataclass(frozen=True)
class Exponential(Ramp):
    """From `start` to `end` by the same factor at each count.

    torch's ExponentialLR(gamma) for n steps is Exponential(base, base * gamma**n, n).

    Raises ValueError unless both ends are positive or both negative.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start * self.end <= 0:
            raise ValueError(
                f"Exponential multiplies by a factor, and none leads from {self.start} to {self.end}; give two ends of "
                "the same sign, neither of them 0"
            )

    def between(self, progress: float) -> float:
        value: float = self.start * (self.end / self.start) ** progress
        return value


@dataclass(frozen=True)
class Polynomial(Ramp):
    """From `start` to `end`; the distance left is (1 - progress)**power of the whole.

    torch's PolynomialLR(total_iters, power) of the base rate is Polynomial(base, 0, total_iters, power).
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "power", self.power)
        if self.power <= 0:
            raise ValueError(f"Polynomial needs a power above 0, but got {self.power}")

    def between(self, progress: float) -> float:
        left: float = (1 - progress) ** self.power
        return left * self.start + (1 - left) * self.end


@dataclass(frozen=True)
class Piecewise(Shape):
    """The points {count: value}, joined by lines, or with `interpolate=False` each value until the next count.

    Before the first point its value holds, after the last one that. Ignite's PiecewiseLinear(milestones_values=points);
    without lines torch's MultiStepLR.

    Raises ValueError for no points or counts that do not grow.
    """

    points: Mapping[float, float] | Sequence[tuple[float, float]]
    interpolate: bool = True
    duration: float = field(init=False, repr=False)
    _counts: tuple[float, ...] = field(init=False, repr=False)
    _values: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        points = tuple(self.points.items() if isinstance(self.points, Mapping) else map(tuple, self.points))
        counts = tuple(count for count, _ in points)
        for count, value in points:
            check_number(self, "count", count)
            check_number(self, "value", value)
        if not points or any(after <= before for before, after in pairwise(counts)):
            raise ValueError(f"Piecewise needs points at growing counts, but got {self.points}")
        set_frozen(
            self, points=points, duration=counts[-1], _counts=counts, _values=tuple(value for _, value in points)
        )

    def __call__(self, count: float) -> float:
        counts, values = self._counts, self._values
        after = bisect_right(counts, count)
        if after == 0:
            return values[0]
        if after == len(counts) or not self.interpolate:
            return values[after - 1]
        progress = (count - counts[after - 1]) / (counts[after] - counts[after - 1])
        return (1 - progress) * values[after - 1] + progress * values[after]


@dataclass(frozen=True)
class Cyclic(Shape):
    """A shape repeated `times` times, or for ever.

    Each cycle takes `stretch` times as long as the one before it, and swings `damp` times as far from the shape's first
    value. torch's CosineAnnealingWarmRestarts(T_0, T_mult, eta_min) is Cyclic(Cosine(base, eta_min, T_0),
    stretch=T_mult); its CyclicLR(low, high, up, down) is Cyclic(Linear(low, high, up) + Linear(high, low, down)), with
    damp=0.5 for the mode "triangular2". Ignite's LinearCyclicalScheduler(start, end, cycle_size) goes there and back
    likewise, with both durations cycle_size / 2; with monotonic=True it is Cyclic(Linear(start, end, cycle_size)).

    Raises ValueError for a shape without end.
    """

    shape: Shape
    times: int | None = None
    stretch: float = 1
    damp: float = 1.0
    duration: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.shape, Shape):
            raise TypeError(f"Cyclic repeats a shape (Linear, Cosine, ...), but got {self.shape!r}")
        check_duration(self, self.shape.duration)
        check_number(self, "stretch", self.stretch)
        check_number(self, "damp", self.damp)
        if self.stretch < 1 or (self.times is not None and self.times < 1):
            raise ValueError(f"Cyclic needs times and stretch of 1 or more, but got {self.times} and {self.stretch}")
        cycles = math.inf if self.times is None else sum(self.stretch**cycle for cycle in range(self.times))
        set_frozen(self, duration=cycles * self.shape.duration)

    def __call__(self, count: float) -> float:
        length = self.shape.duration
        cycle: float = 0
        if self.times is not None and count >= self.duration:
            cycle, count = self.times - 1, length
        elif self.stretch == 1:
            cycle, count = divmod(count, length)
        else:
            factor: float = 1
            while count >= length * factor:
                count -= length * factor
                factor *= self.stretch
                cycle += 1
            count /= factor
        value = self.shape(count)
        if self.damp == 1:
            return value
        first = self.shape(0)
        swing: float = self.damp**cycle
        return first + (value - first) * swing
