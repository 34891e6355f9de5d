"""Training on long sequences in parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from leyden.engine import Engine, EventEnum, Events, Order
from leyden.engine.values import as_whole, detached
from leyden.handlers.training.chunks import cut, mean_output, time_of
from leyden.handlers.training.gradient_accumulation import GradientAccumulation

Split = Callable[[Any, int], Iterable[Any]]


class TruncatedBPTTEvents(EventEnum):
    """The events of a chunk of a batch; filters count the chunks of the run, `state.time_iteration`."""

    TIME_ITERATION_STARTED = "time_iteration_started"
    """`state.hidden` is that of the chunk before, or None."""
    TIME_ITERATION_COMPLETED = "time_iteration_completed"


class TruncatedBPTT:
    """Cuts each batch along time into chunks of `length`, and runs the process function, with its optimizer step, on
    each: truncated backpropagation through time.

    The process function finds in `engine.state.hidden` what it left there for the chunk before, detached (tensors in
    nested tuples, lists and mappings), and None at a batch's first chunk:

        output, hidden = model(x, engine.state.hidden)
        ...
        engine.state.hidden = hidden

    One that evaluates a closure several times (LBFGS) reads it before the closure. The engine's iterations, its
    `state.batch` and ITERATION_* are of the whole batch; a stop takes effect after it. `TruncatedBPTTEvents` are of the
    chunks, and `state.time_iteration` counts them.

    `dim`: the dimension of time. Every tensor of the batch that is as long in it as the first one that has so many
    dimensions is cut; all else goes into each chunk whole. `split(batch, length)` gives other chunks. The output of the
    iteration is the mean of its chunks' outputs, each weighted by the steps of time in it, where they are scalars; else
    the list of them. On several ranks each rank's batch must have as many chunks.

    Raises ValueError for a length below 1, a batch without time, and beside GradientAccumulation, whose windows are of
    whole batches; TypeError for packed sequences. Source: Williams and Peng, An Efficient Gradient-Based Algorithm for
    On-Line Training of Recurrent Network Trajectories, 1990.
    """

    refuses_second_engine = True
    same_on_ranks = ("length", "dim")

    def __init__(self, length: int, *, dim: int = 1, split: Split | None = None) -> None:
        for name, value, least in (("length", length, 1), ("dim", dim, 0)):
            if (whole := as_whole(value)) is None or whole < least:
                raise ValueError(f"TruncatedBPTT takes {name} as a whole number, at least {least}, but got {value!r}")
        if split is not None and not callable(split):
            raise TypeError(f"TruncatedBPTT takes split= as a function of (batch, length), but got {split!r}")
        self.length = int(length)
        self.dim = int(dim)
        self.split = split
        self._engine: Engine[Any, Any] | None = None

    def attach(self, engine: Engine[Any, Any]) -> None:
        if self._engine is not None:
            raise ValueError("this TruncatedBPTT is attached to an engine already; make one for each")
        self._engine = engine
        events = (TruncatedBPTTEvents.TIME_ITERATION_STARTED, TruncatedBPTTEvents.TIME_ITERATION_COMPLETED)
        engine.register_events(*events, event_to_attr=dict.fromkeys(events, "time_iteration"))
        engine.state.hidden = None  # type: ignore[attr-defined]
        engine.add_event_handler(Events.STARTED, self.start_run, order=Order.METRICS)
        for update in engine.updates.values():
            update.slots.one_pass = False
        engine.process = self._wrap(engine, *events)

    def refuses(self, other: object) -> str | None:
        if isinstance(other, TruncatedBPTT):
            return "a batch is cut into chunks once"
        if isinstance(other, GradientAccumulation):
            return (
                "windows are of whole batches, and close at an epoch's last batch, while each chunk of a batch has its "
                "own optimizer step; leave GradientAccumulation out, and take longer chunks or larger batches"
            )
        return None

    def start_run(self, engine: Engine[Any, Any]) -> None:
        """A run from the beginning counts from there."""
        if engine.state.iteration == 0:
            engine.state.time_iteration = 0  # type: ignore[attr-defined]

    def _wrap(self, engine: Engine[Any, Any], before: EventEnum, after: EventEnum) -> Callable[..., Any]:
        process: Any = engine.process
        state: Any = engine.state
        started, completed = (next(each for each in engine.tables() if each.event is key) for key in (before, after))

        @functools.wraps(process)
        def process_in_chunks(engine: Engine[Any, Any], batch: Any) -> Any:
            state.hidden = None
            count = state.time_iteration
            chunks, lengths = self._chunks(batch)
            outputs: list[Any] = []
            for chunk in chunks:
                count += 1
                state.time_iteration = count
                if count >= started.due:
                    started.fire(count)
                outputs.append(process(engine, chunk))
                if self.split is not None:
                    lengths.append(time_of(chunk, self.dim))
                state.hidden = detached(state.hidden)
                if count >= completed.due:
                    completed.fire(count)
            return mean_output(outputs, lengths)

        return process_in_chunks

    def _chunks(self, batch: Any) -> tuple[Iterable[Any], list[int]]:
        """The chunks, and the steps of time in each where that is known before."""
        if self.split is not None:
            return self.split(batch, self.length), []
        time, length = time_of(batch, self.dim), self.length
        if not time:
            raise ValueError(
                f"TruncatedBPTT cuts batches along dim={self.dim}, but no tensor in this one ({type(batch).__name__}) "
                "has such a dimension with anything in it; give another dim=, or split=, a function of (batch, length)"
            )
        if time <= length:
            return [batch], [time]
        return cut(batch, self.dim, time, length), [min(length, time - start) for start in range(0, time, length)]

    def state_dict(self) -> dict[str, Any]:
        state: Any = None if self._engine is None else self._engine.state
        return {"time_iteration": 0 if state is None else state.time_iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._engine is not None:
            self._engine.state.time_iteration = state_dict["time_iteration"]  # type: ignore[attr-defined]
