"""Where a run stands: typed, open to what a user sets, and plain data."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch


class MetricValues(MutableMapping[str, Any]):
    """The metrics of a run by name. A scalar tensor may be put in; it comes out as a plain number.

    The copy to the host happens when someone reads, so that a handler may put in a value at each step without waiting.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self.times_set: dict[str, int] = {}
        """How often each was set: lets a reader tell a new value from one of an earlier evaluation."""

    def __getitem__(self, name: str) -> Any:
        try:
            value = self._values[name]
        except KeyError:
            there = ", ".join(sorted(self._values)) or "none yet"
            raise KeyError(f"no metric {name!r}; there are: {there}") from None
        return value.item() if isinstance(value, torch.Tensor) and value.ndim == 0 else value

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value
        self.times_set[name] = self.times_set.get(name, 0) + 1

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __repr__(self) -> str:
        return repr(dict(self))


class State:
    """The state of an engine. Handlers and users may set further attributes.

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
        self.metrics: MetricValues = MetricValues()
        self.times: dict[str, float | None] = {"EPOCH_COMPLETED": None, "COMPLETED": None}
        self.dataloader: Any = None
        self.seed: int | None = None
        self.diverged: bool = False
        self.dry_run: bool = False

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not there: the class is open, so its attributes of a user's own have any type.
        raise AttributeError(f"the state has no {name!r}; it has: {', '.join(sorted(vars(self)))}")

    def __repr__(self) -> str:
        length = "?" if self.epoch_length is None else self.epoch_length
        return f"State(epoch={self.epoch}, iteration={self.iteration}, step={self.step}, epoch_length={length})"
