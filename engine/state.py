"""Where a run stands: typed, open to what a user sets, and plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyden.engine.values.metric_values import MetricValues


class State:
    """The state of an engine. Handlers and users may add attributes.

    epoch, iteration: how many have begun, in all of the run. step: optimizer steps done. epoch_length: batches an
    epoch, None while unknown. batch, output: of the running iteration. metrics: by name, see `MetricValues`. times:
    seconds of the last epoch ("EPOCH_COMPLETED") and of the run ("COMPLETED"). dataloader: the data of the run, as the
    engine iterates it. diverged: a handler found that the numbers are lost (not finite); what is there is not worth
    keeping. dry_run: nothing of the run is to be written (see the handler `DryRun`).
    """

    def __init__(self) -> None:
        self.epoch: int = 0
        self.iteration: int = 0
        self.step: int = 0
        self.epoch_length: int | None = None
        self.max_epochs: int | None = None
        self.max_iters: int | None = None
        self.batch: Any = None
        self.output: Any = None
        vars(self)["metrics"] = MetricValues()
        self.metrics.counts = self
        self.times: dict[str, float | None] = {"EPOCH_COMPLETED": None, "COMPLETED": None}
        self.note_data(None)
        self.seed: int | None = None
        self.diverged: bool = False
        self.dry_run: bool = False

    @property
    def metrics(self) -> MetricValues:
        """The metrics by name. Assigning a mapping replaces all of them."""
        values: MetricValues = vars(self)["metrics"]
        return values

    @metrics.setter
    def metrics(self, values: MetricValues | Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise TypeError(f"state.metrics is a mapping from names to values, but was to become {values!r}")
        there = self.metrics
        if values is not there:
            there.replace(values)

    @property
    def dataloader(self) -> Any:
        """The data of the run, as the engine iterates it."""
        return vars(self).get("dataloader")

    @dataloader.setter
    def dataloader(self, data: Any) -> None:
        raise AttributeError(
            "state.dataloader shows what the engine iterates, and setting it would change nothing: take the next "
            "batches from other data by engine.set_data(data), or give them to engine.run(data)"
        )

    def note_data(self, data: Any) -> None:
        """For the engine: says what it iterates."""
        vars(self)["dataloader"] = data

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not there: the class is open, so its attributes of a user's own have any type.
        raise AttributeError(f"the state has no {name!r}; it has: {', '.join(sorted(vars(self)))}")

    def __repr__(self) -> str:
        length = "?" if self.epoch_length is None else self.epoch_length
        return f"State(epoch={self.epoch}, iteration={self.iteration}, step={self.step}, epoch_length={length})"
