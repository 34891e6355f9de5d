"""A backend that keeps everything in lists."""

from typing import Any

from leyden.engine import Engine
from leyden.handlers.loggers import Ending, Logger, Value


class ListLogger(Logger):
    """A whole backend: what a new one has to define."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.values: list[Value] = []
        self.kept_params: dict[str, str] = {}
        self.story: list[str] = []
        self.broken = False

    def _open(self, engine: Engine, continues: bool) -> dict[str, str]:
        self.story.append("continued" if continues and self.story else "opened")
        return self.kept_params

    def _write(self, values: list[Value]) -> None:
        if self.broken:
            raise OSError("the disk is full")
        self.values += values

    def _write_params(self, params: dict[str, str]) -> None:
        self.kept_params = self.kept_params | params

    def _close(self, ending: Ending | None, error: BaseException | None) -> None:
        self.story.append(f"{ending.value if ending else 'closed'}{'' if error is None else ' by ' + repr(error)}")

    def _place(self) -> str:
        return "a list"

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """All but the epoch's."""
        found: dict[str, list[tuple[int, float]]] = {}
        for value in self.values:
            found.setdefault(value.name, []).append((value.step, value.number))
        found.pop("train/epoch", None)
        return found


def counting_engine() -> Engine:
    """Its output is the number of the iteration."""
    return Engine(lambda engine, batch: float(engine.state.iteration))
