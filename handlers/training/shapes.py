"""Values as functions of a count: what `ParamSchedule` and `BatchSizeSchedule` follow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from leyden.handlers.loggers.packages import require_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Shape(ABC):
    """A value for each count (of steps, say) from 0 on, computed from the count alone, so a shape has no state.

    A shape lasts for `duration` counts, `math.inf` if it has no end: at the count `duration` it is at its end value,
    and stays there. `a + b` is a, then b from the count at which a ends. A shape of one's own has a `duration` and
    `__call__(count)`.
    """

    duration: float

    @abstractmethod
    def __call__(self, count: float) -> float:
        """The value at a count."""

    def __add__(self, other: Shape) -> Concatenate:
        return Concatenate((self, other)) if isinstance(other, Shape) else NotImplemented

    def with_warmup(self, counts: float, start: float = 0.0) -> Concatenate:
        """A line from the value `start` to this shape's first value, which takes `counts`; then this shape.

        Ignite's create_lr_scheduler_with_warmup(scheduler, warmup_start_value=start, warmup_duration=counts), but for
        the line's slope: Ignite's is at its end one count sooner, and stays there for that count.
        """
        return Linear(start, self(0), counts) + self

    def simulate(self, counts: int | None = None) -> list[tuple[int, float]]:
        """The pairs (count, value) of the first `counts` counts; by default up to the end of the shape.

        Raises ValueError where there is no end and no number is given.
        """
        if counts is None:
            if math.isinf(self.duration):
                raise ValueError(f"{type(self).__name__} has no end; say for how many counts, simulate(1000)")
            counts = math.ceil(self.duration) + 1
        return [(count, self(count)) for count in range(counts)]

    def plot(self, counts: int | None = None, axes: Axes | None = None) -> Axes:
        """Draws what `simulate` gives, into `axes` or a new figure, by matplotlib; gives the axes."""
        return draw({"": self.simulate(counts)}, "count", "value", axes)


@dataclass(frozen=True)
class Constant(Shape):
    """The same value, for ever or for `duration` counts."""

    value: float
    duration: float = math.inf

    def __post_init__(self) -> None:
        check_number(self, "value", self.value)
        check_duration(self, self.duration, endless=True)

    def __call__(self, count: float) -> float:
        return self.value


@dataclass(frozen=True)
class _Ramp(Shape):
    start: float
    end: float
    duration: float

    def __post_init__(self) -> None:
        check_number(self, "start", self.start)
        check_number(self, "end", self.end)
        check_duration(self, self.duration)

    def __call__(self, count: float) -> float:
        if count >= self.duration:
            return self.end
        if count <= 0:
            return self.start
        return self.between(count / self.duration)

    @abstractmethod
    def between(self, progress: float) -> float:
        """The value where `progress`, between 0 and 1, of the duration is over."""


@dataclass(frozen=True)
class Linear(_Ramp):
    """A line from `start` to `end`; torch's LinearLR(start_factor, end_factor, total_iters), in values, not factors."""

    def between(self, progress: float) -> float:
        return (1 - progress) * self.start + progress * self.end


@dataclass(frozen=True)
class Cosine(_Ramp):
    """Half a cosine from `start` to `end`: flat, steep, flat.

    torch's CosineAnnealingLR(T_max, eta_min) of the base rate is Cosine(base, eta_min, T_max). Ignite's
    CosineAnnealingScheduler(start, end, cycle_size) goes there and back: Cyclic(Cosine(start, end, cycle_size / 2) +
    Cosine(end, start, cycle_size / 2)).
    """

    def between(self, progress: float) -> float:
        done = (1 - math.cos(math.pi * progress)) / 2
        return (1 - done) * self.start + done * self.end


@dataclass(frozen=True)
class Exponential(_Ramp):
    """From `start` to `end` by the same factor at each count.

    torch's ExponentialLR(gamma) for n steps is Exponential(base, base * gamma**n, n).

    Raises ValueError unless both ends are positive or both negative.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start * self.end <= 0:
            raise ValueError(
                f"Exponential goes by a factor, which none leads from {self.start} to {self.end}; give two ends of one "
                "sign, neither of them 0"
            )

    def between(self, progress: float) -> float:
        value: float = self.start * (self.end / self.start) ** progress
        return value


@dataclass(frozen=True)
class Polynomial(_Ramp):
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
        _set(self, points=points, duration=counts[-1], _counts=counts, _values=tuple(value for _, value in points))

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
class Concatenate(Shape):
    """One shape after the other, each from its own count 0; what `a + b` gives.

    `durations`: for how many counts each but the last is followed, if not to its end. Ignite's
    ConcatScheduler(schedulers, durations); torch's SequentialLR, whose milestones are the sums of the durations.

    Raises ValueError for a shape without end that another one shall follow.
    """

    shapes: Sequence[Shape]
    durations: Sequence[float] | None = None
    duration: float = field(init=False, repr=False)
    _starts: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shapes = tuple(self.shapes)
        if not shapes or not all(isinstance(shape, Shape) for shape in shapes):
            raise TypeError(f"Concatenate takes shapes (Linear, Cosine, ...), but got {list(shapes)}")
        durations = tuple(shape.duration for shape in shapes[:-1]) if self.durations is None else tuple(self.durations)
        if len(durations) != len(shapes) - 1:
            raise ValueError(f"Concatenate needs a duration for each shape but the last, but got {list(durations)}")
        for duration in durations:
            check_duration(self, duration)
        starts = tuple(accumulate((0, *durations)))
        _set(self, shapes=shapes, durations=durations, duration=starts[-1] + shapes[-1].duration, _starts=starts)

    def __add__(self, other: Shape) -> Concatenate:
        if not isinstance(other, Shape):
            return NotImplemented
        assert self.durations is not None
        return Concatenate((*self.shapes, other), (*self.durations, self.shapes[-1].duration))

    def __call__(self, count: float) -> float:
        piece = bisect_right(self._starts, count) - 1
        return self.shapes[piece](count - self._starts[piece])


@dataclass(frozen=True)
class Cyclic(Shape):
    """A shape again and again, `times` times or for ever.

    Each cycle takes `stretch` times as long as the one before it, and swings `damp` times as far from the shape's first
    value. torch's CosineAnnealingWarmRestarts(T_0, T_mult, eta_min) is Cyclic(Cosine(base, eta_min, T_0),
    stretch=T_mult); its CyclicLR(low, high, up, down) is Cyclic(Linear(low, high, up) + Linear(high, low, down)), with
    damp=0.5 for the mode "triangular2". Ignite's LinearCyclicalScheduler(start, end, cycle_size) is the same with both
    durations cycle_size / 2.

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
        _set(self, duration=cycles * self.shape.duration)

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


def draw(
    curves: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str, axes: Axes | None = None
) -> Axes:
    """Draws curves by their names, "" for one that needs none. Raises ModuleNotFoundError without matplotlib."""
    require_package("matplotlib", "plot", "plot()")
    from matplotlib import pyplot

    if axes is None:
        axes = pyplot.subplots()[1]
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name or None)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if any(curves):
        axes.legend()
    return axes


def check_number(who: object, name: str, value: Any) -> None:
    """Raises TypeError for what is no number, ValueError for one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(who).__name__} takes numbers, but its {name} is {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{type(who).__name__} takes finite numbers, but its {name} is {value}")


def check_duration(who: object, value: Any, *, endless: bool = False) -> None:
    """Raises TypeError for what is no number, ValueError for a duration that is not positive or, where one is needed,
    has no end.
    """
    if endless and value == math.inf:
        return
    if value == math.inf:
        raise ValueError(f"{type(who).__name__} needs a duration here, but got a shape without end; give it a duration")
    check_number(who, "duration", value)
    if value <= 0:
        raise ValueError(f"{type(who).__name__} needs a duration above 0 counts, but got {value}")


def _set(shape: Shape, **attributes: Any) -> None:
    for name, value in attributes.items():
        object.__setattr__(shape, name, value)  # in the making of a frozen one
