"""Logging to event files that TensorBoard shows."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leyden.engine import Engine
from leyden.handlers.common.packages import require_package
from leyden.handlers.loggers.base import Logger
from leyden.handlers.loggers.entries import Ending, Image, Value
from leyden.handlers.loggers.event_files import EventFile, point_of, points_in
from leyden.handlers.loggers.folders import Claim, make_new
from leyden.handlers.loggers.values import MetricChoice
from leyden.metrics import OutputTransform


class TensorBoardLogger(Logger):
    """Logs a run's curves, and its parameters as a table of text, to event files; what is logged when, see `Logger`.

    Images that `log_image` gives stand under Images.

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
        self._file: EventFile | None = None
        self._goes_on_from = 0  # the iteration of a run that is gone on with, until what was on its way is there
        self._repeats_until = 0.0  # an image that was logged before may be in the folder already
        self._claim = Claim()

    def refuses(self, other: Any) -> str | None:
        if not isinstance(other, TensorBoardLogger) or self.log_dir is None or other.log_dir is None:
            return None
        if self.log_dir.resolve() != other.log_dir.resolve():
            return None
        return f"both write to {self.log_dir}, where they would hide each other's curves; give each its own log_dir="

    def dashboard_command(self) -> str:
        """The command line that shows this folder in a browser."""
        by_module = shutil.which("tensorboard") is None and find_spec("tensorboard") is not None
        program = f"{shlex.quote(sys.executable)} -m tensorboard.main" if by_module else "tensorboard"
        return f"{program} --logdir {shlex.quote(str(self.log_dir or 'runs'))}"

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"log_dir": None if self.log_dir is None else str(self.log_dir)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
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
        self._file = EventFile(self.log_dir, hides_from=engine.state.iteration + 1)
        self._goes_on_from = engine.state.iteration if self._may_repeat else 0
        self._repeats_until = time.time() if self._may_repeat else 0.0
        return self._logged if continues else {}

    def _opened_file(self) -> EventFile:
        if self._file is None:  # logged after a run
            assert self.log_dir is not None
            self._file = EventFile(self.log_dir)
        return self._file

    def _write(self, values: list[Value]) -> None:
        self._opened_file().add(self._without_known(values))
        self._goes_on_from = 0

    def _write_image(self, image: Image) -> None:
        file = self._opened_file()
        assert self.log_dir is not None
        if image.time >= self._repeats_until or point_of(image) not in points_in(self.log_dir, {image.step}):
            file.add_image(image)

    def _without_known(self, values: list[Value]) -> list[Value]:
        """Of what a checkpoint had as not delivered, the process may have written something before it died."""
        steps = {value.step for value in values if value.step <= self._goes_on_from}
        if not steps or self.log_dir is None:
            return values
        known = points_in(self.log_dir, steps)
        return [value for value in values if point_of(value) not in known]

    def _write_params(self, params: dict[str, str]) -> None:
        rows = [f"|{name}|{text.replace('|', '&#124;').replace(chr(10), ' ')}|" for name, text in params.items()]
        self._opened_file().add_text("parameters", "\n".join(["|parameter|value|", "|---|---|", *rows]))

    def _close(self, ending: Ending | None, error: BaseException | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._claim.give_back()

    def _place(self) -> str:
        return str(self.log_dir)
