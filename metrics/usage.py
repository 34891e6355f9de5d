"""When a metric is reset, updated and computed: `attach(..., usage=)`, by Ignite's names and by events."""

from __future__ import annotations

from typing import Any, ClassVar

from leyden.engine import Events
from leyden.engine.events import AnyEvent, EventEnum, EventsList, FilteredEvent
from leyden.engine.values import whole_number

_EVENTS = (EventEnum, FilteredEvent, EventsList, str)


class MetricUsage:
    """Reset at `started`, updated at `iteration_completed`, computed over all ranks at `completed`.

    `started=None`: at the beginning of the run, and whenever it has been computed; each value is then of what came
    since the one before. An event alone as `usage=` says that: `usage=Events.ITERATION_COMPLETED(every=100)`.
    """

    usage_name: ClassVar[str] = ""
    each_iteration: ClassVar[bool] = False
    """The value of this rank can be read after each iteration; that over all ranks is there at an epoch's end."""
    window: int | None = None
    """How many batches that value is of; None for all since `started`."""

    def __init__(
        self,
        started: AnyEvent | None = Events.EPOCH_STARTED,
        completed: AnyEvent = Events.EPOCH_COMPLETED,
        iteration_completed: AnyEvent = Events.ITERATION_COMPLETED,
    ) -> None:
        for name, event in (
            ("started", started),
            ("completed", completed),
            ("iteration_completed", iteration_completed),
        ):
            if not isinstance(event, _EVENTS) and not (name == "started" and event is None):
                raise TypeError(
                    f"{name} of a MetricUsage is an event, such as Events.EPOCH_COMPLETED, but got {event!r}"
                )
        self.started = started
        self.completed = completed
        self.iteration_completed = iteration_completed

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        if self.usage_name:
            return self.usage_name
        return f"{self.started or 'the value before'} to {self.completed}, at {self.iteration_completed}"


class EpochWise(MetricUsage):
    """Reset at the start of each epoch and computed at its end: what every metric does by default."""

    usage_name = "epoch_wise"

    def __init__(self) -> None:
        super().__init__()


class BatchFiltered(MetricUsage):
    """Over each epoch, but of some batches only; arguments as those of an event: `BatchFiltered(every=10)`."""

    def __init__(self, *args: Any, **filters: Any) -> None:
        super().__init__(iteration_completed=Events.ITERATION_COMPLETED(*args, **filters))


class BatchWise(MetricUsage):
    """Of each batch."""

    usage_name = "batch_wise"
    each_iteration = True
    window = 1

    def __init__(self) -> None:
        super().__init__()


class RunningWindow(MetricUsage):
    """Of the last `window` batches, over the ends of epochs; computed when somebody reads it."""

    each_iteration = True

    def __init__(self, window: int) -> None:
        super().__init__(Events.STARTED)
        self.window = whole_number("the window of RunningWindow, a number of batches,", window, 1)

    def __str__(self) -> str:
        return f"running_window({self.window})"


class RunningBatchWise(MetricUsage):
    """Of all batches since the run began; for RunningAverage, RunningAverage(epoch_bound=False)."""

    usage_name = "running_batch_wise"
    each_iteration = True

    def __init__(self) -> None:
        super().__init__(Events.STARTED)


class SingleEpochRunningBatchWise(MetricUsage):
    """Of all batches since the epoch began; for RunningAverage, what it does by default."""

    usage_name = "single_epoch_running_batch_wise"
    each_iteration = True

    def __init__(self) -> None:
        super().__init__()


EPOCH_WISE = EpochWise()
_NAMED = {each.usage_name: each for each in (EpochWise, BatchWise, RunningBatchWise, SingleEpochRunningBatchWise)}


def usage_of(usage: Any) -> MetricUsage:
    """A usage, given as such, by name, or as the event at which a value is due.

    Raises ValueError for a name that is none, TypeError for anything else.
    """
    if isinstance(usage, MetricUsage):
        return usage
    if isinstance(usage, str):
        if usage not in _NAMED:
            raise ValueError(f"usage= knows the names {', '.join(_NAMED)}, but got {usage!r}; or give it an event")
        return _NAMED[usage]()
    if isinstance(usage, _EVENTS):
        return MetricUsage(None, usage)
    if isinstance(usage, type) and issubclass(usage, MetricUsage):
        if usage in _NAMED.values():
            return usage()
        raise TypeError(f"usage= takes an object, {usage.__name__}(...), but got the class")
    raise TypeError(
        "usage= takes an event at which a value is due, such as Events.ITERATION_COMPLETED(every=100), a usage such as "
        f"BatchWise(), or its name, but got {usage!r}"
    )
