"""Ignite's progress bar over leyden's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

from leyden import handlers
from leyden.engine import Engine, Events
from leyden.engine.events import AnyEvent, FilteredEvent
from leyden.handlers.monitoring import TextStream


class ProgressBar:
    """A bar for each epoch of each engine that it is attached to, with the metrics and outputs that `attach` names.

    `persist`: an epoch's bar stays. `desc` and `file` as tqdm has them; what else tqdm or Ignite take changes nothing
    here: the bar is leyden's.
    """

    def __init__(
        self, persist: bool = False, bar_format: str | None = None, *, file: TextIO | None = None, **tqdm_kwargs: Any
    ) -> None:
        self.persist = persist
        self._file = file
        self._desc: str | None = tqdm_kwargs.get("desc")

    def attach(
        self,
        engine: Engine[Any, Any],
        metric_names: str | list[str] | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        event_name: AnyEvent = Events.ITERATION_COMPLETED,
        closing_event_name: AnyEvent = Events.EPOCH_COMPLETED,
        state_attributes: list[str] | None = None,
    ) -> None:
        """Shows these at each ITERATION_COMPLETED, or at those that a filter by `every` leaves.

        Raises ValueError for other events.
        """
        every = event_name.filter.every if isinstance(event_name, FilteredEvent) else None
        each = event_name is Events.ITERATION_COMPLETED
        filtered = every is not None and event_name == Events.ITERATION_COMPLETED(every=every)
        if not (each or filtered) or closing_event_name is not Events.EPOCH_COMPLETED:
            raise ValueError(
                "ProgressBar shows the iterations of an epoch: event_name is Events.ITERATION_COMPLETED, or that with "
                f"every=, and closing_event_name Events.EPOCH_COMPLETED, but got {event_name} and {closing_event_name}"
            )

        def shown(output: Any) -> Any:
            values: dict[str, Any] = {}
            if output_transform is not None:
                made = output_transform(output)
                values |= made if isinstance(made, dict) else {"output": made}
            return values | {name: getattr(engine.state, name, None) for name in state_attributes or ()}

        bar = handlers.ProgressBar(
            every=every,
            metrics=metric_names,
            output_transform=shown,
            desc=self._desc,
            persist=self.persist,
            file=self._file,
        )
        engine.attach(bar)

    def log_message(self, message: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(message, file=TextStream(sys.stdout if self._file is None else self._file))
