"""Values as functions of a count: what `ParamSchedule` and `BatchSizeSchedule` follow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from leyden.handlers.training.drawing import draw
from leyden.handlers.training.shape_checks import check_duration, check_number, set_frozen

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
class Ramp(Shape):
    """Base of shapes that go from one value to another."""

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
class Linear(Ramp):
    """A line from `start` to `end`; torch's LinearLR(start_factor, end_factor, total_iters), in values, not factors."""

    def between(self, progress: float) -> float:
        return (1 - progress) * self.start + progress * self.end


@dataclass(frozen=True)
class Concatenate(Shape):
    """One shape after the other, each from its own count 0; what `a + b` gives.

    `durations`: for how many counts each but the last is followed, if not to its end. Ignite's
    ConcatScheduler(schedulers, durations); torch's SequentialLR, whose milestones are the sums of the durations.

    Raises ValueError if a shape without end is followed by another one.
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
        set_frozen(self, shapes=shapes, durations=durations, duration=starts[-1] + shapes[-1].duration, _starts=starts)

    def __add__(self, other: Shape) -> Concatenate:
        if not isinstance(other, Shape):
            return NotImplemented
        assert self.durations is not None
        return Concatenate((*self.shapes, other), (*self.durations, self.shapes[-1].duration))

    def __call__(self, count: float) -> float:
        piece = bisect_right(self._starts, count) - 1
        return self.shapes[piece](count - self._starts[piece])


def shape_in_words(shape: Any) -> str:
    """A shape as its call shows it, equal in two processes that make the same; of one's own its class alone, unless it
    is a dataclass.
    """
    if isinstance(shape, list | tuple):
        return f"[{', '.join(map(shape_in_words, shape))}]"
    if is_dataclass(shape):
        told = {each.name: shape_in_words(getattr(shape, each.name)) for each in fields(shape) if each.init}
        return f"{type(shape).__name__}({', '.join(f'{name}={value}' for name, value in told.items())})"
    plain = shape is None or isinstance(shape, bool | int | float | str)
    return repr(shape) if plain else getattr(shape, "__qualname__", type(shape).__name__)
