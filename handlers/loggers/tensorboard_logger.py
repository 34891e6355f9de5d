"""Logging to event files that TensorBoard shows."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.engine import Engine
from leyden.handlers.loggers.base import Ending, Logger, Value
from leyden.handlers.loggers.folders import Claim, make_new
from leyden.handlers.loggers.packages import require_package
from leyden.handlers.loggers.values import MetricChoice, OutputTransform


class TensorBoardLogger(Logger):
    """Logs a run's curves, and its parameters as a table of text, to event files; what is logged when, see `Logger`.

    `log_dir`: where the files go; None: a new folder runs/<date>_<time>_<host> for each run. Training that is resumed
    goes on in its folder. What a folder holds of iterations that are still to come, from a process that died after its
    last checkpoint, TensorBoard then hides.

    Raises ModuleNotFoundError if tensorboardX is not installed; OSError when a run starts and can't make the folder.
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        *,
        every: int | None = 50,
        metrics: MetricChoice = "all",
        output_transform: OutputTransform | None = None,
        learning_rates: bool = True,
        params: Mapping[str, Any] | None = None,
        patience: float = 30.0,
    ) -> None:
        require_package("tensorboardX", "tensorboard", type(self).__name__)
        super().__init__(
            every=every,
            metrics=metrics,
            output_transform=output_transform,
            learning_rates=learning_rates,
            params=params,
            patience=patience,
        )
        if log_dir is not None and not isinstance(log_dir, str | Path):
            raise TypeError(f"TensorBoardLogger(log_dir=) takes a path, or None for a new folder, but got {log_dir!r}")
        self.log_dir: Path | None = None if log_dir is None else Path(log_dir).expanduser()
        """The folder of the run; None before the first run starts, if none was given."""
        self._given = log_dir is not None
        self._writer: Any = None
        self._claim = Claim()

    def refuses(self, other: Any) -> str | None:
        if not isinstance(other, TensorBoardLogger) or self.log_dir is None or other.log_dir is None:
            return None
        if self.log_dir.resolve() != other.log_dir.resolve():
            return None
        return f"both write to {self.log_dir}, where they would hide each other's curves; give each its own log_dir="

    def dashboard_command(self) -> str:
        """The command line that shows this folder in a browser."""
        return f"tensorboard --logdir {shlex.quote(str(self.log_dir or 'runs'))}"

    def state_dict(self) -> dict[str, Any]:
        self._flush()
        return {"log_dir": None if self.log_dir is None else str(self.log_dir)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._given and state_dict["log_dir"] is not None:
            self.log_dir = Path(state_dict["log_dir"])

    def _open(self, engine: Engine[Any, Any], continues: bool) -> dict[str, str]:
        if self.log_dir is None or not (continues or self._given):
            self.log_dir = make_new(Path("runs"))
        self.log_dir.mkdir(parents=True, exist_ok=True)
        if not self._claim.take(self.log_dir):
            self._warn(
                f"another run writes to {self.log_dir} at this moment, and they will hide each other's curves; give "
                "each a log_dir= of its own, or none"
            )
        # TensorBoard hides what it has from this step on: the run writes it anew.
        self._writer = self._make_writer(purge_step=engine.state.iteration + 1)
        return self._logged if continues else {}

    def _make_writer(self, purge_step: int | None = None) -> Any:
        from tensorboardX import SummaryWriter

        # A file is named by the second, so another one made in it would replace it. TensorBoard reads files by name.
        suffix = f".{time.time_ns()}"
        # Its thread passes events on within a second, so that a killed process loses little.
        return SummaryWriter(
            str(self.log_dir), purge_step=purge_step, max_queue=1000, flush_secs=1, filename_suffix=suffix
        )

    def _write(self, values: list[Value]) -> None:
        if self._writer is None:
            self._writer = self._make_writer()
        for value in values:
            self._writer.add_scalar(value.name, value.number, value.step, walltime=value.time)
        self._writer.flush()

    def _write_params(self, params: dict[str, str]) -> None:
        if self._writer is None:
            self._writer = self._make_writer()
        rows = [f"|{name}|{text.replace('|', '&#124;').replace(chr(10), ' ')}|" for name, text in params.items()]
        self._writer.add_text("parameters", "\n".join(["|parameter|value|", "|---|---|", *rows]), 0)

    def _close(self, ending: Ending | None, error: BaseException | None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._claim.give_back()

    def _place(self) -> str:
        return str(self.log_dir)
