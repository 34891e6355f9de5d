"""Ignite's EarlyStopping, which an evaluator calls and which ends a trainer. leyden's own watches a metric's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leyden import distributed as dist
from leyden.engine import Engine, Events
from leyden.engine.values import whole_number
from leyden.handlers.common import require_function, require_mode, require_number


class EarlyStopping:
    """Ends `trainer` once `score_function(engine)` has not improved in `patience` calls; added to the evaluator's
    COMPLETED.

    `threshold` (`min_delta` in earlier releases), `threshold_mode`, `cumulative` and `mode` as in Ignite: less than the
    threshold is no improvement, but unless `cumulative` it moves the best score all the same.
    """

    def __init__(
        self,
        patience: int,
        score_function: Callable[[Engine[Any, Any]], float],
        trainer: Engine[Any, Any],
        threshold: float = 0.0,
        cumulative: bool = False,
        threshold_mode: str = "abs",
        mode: str = "max",
        min_delta: float | None = None,
        min_delta_mode: str | None = None,
        cumulative_delta: bool | None = None,
    ) -> None:
        if score_function is None or not isinstance(trainer, Engine):
            raise TypeError(f"EarlyStopping takes a function and a trainer, but got {score_function!r} and {trainer!r}")
        require_function("EarlyStopping", "score_function", score_function, "the engine")
        self.patience = whole_number("a patience", patience, 1, who="EarlyStopping")
        threshold = threshold if min_delta is None else min_delta
        self.threshold = require_number("EarlyStopping", "a threshold", threshold, least=0)
        self.threshold_mode = threshold_mode if min_delta_mode is None else min_delta_mode
        if self.threshold_mode not in ("abs", "rel"):
            raise ValueError(f'EarlyStopping takes threshold_mode="abs" or "rel", but got {self.threshold_mode!r}')
        self.cumulative = cumulative if cumulative_delta is None else cumulative_delta
        self.mode = require_mode("EarlyStopping", score_function, mode)
        self.score_function = score_function
        self.trainer = trainer
        self.counter = 0
        """Calls since the best score."""
        self.best_score: float | None = None

    def __call__(self, engine: Engine[Any, Any]) -> None:
        """Compares the score of now with the best one."""
        score = float(self.score_function(engine))
        if self.best_score is None:
            self.best_score = score
            return
        sign = 1 if self.mode == "max" else -1
        change = sign * self.threshold
        bound = self.best_score + change if self.threshold_mode == "abs" else self.best_score * (1 + change)
        if sign * score > sign * bound:
            self.best_score, self.counter = score, 0
            return
        if not self.cumulative and sign * score > sign * self.best_score:
            self.best_score = score
        self.counter += 1
        if self.counter >= self.patience:
            if dist.rank() == 0:
                print(
                    f"EarlyStopping ended the run after epoch {self.trainer.state.epoch}: the score was not better "
                    f"than {self.best_score:.6g} in {self.counter} evaluations "
                    f'(mode="{self.mode}", patience={self.patience})',
                    flush=True,
                )
            self.trainer.terminate()

    def reset(self) -> None:
        """Forgets all scores."""
        self.counter, self.best_score = 0, None

    def attach(
        self,
        engine: Engine[Any, Any],
        event: Any = Events.COMPLETED,
        reset_engine: Engine[Any, Any] | None = None,
        reset_event: Any = Events.STARTED,
    ) -> None:
        """Has `engine` call it at `event`; where `reset_engine` (by default `engine` itself) comes to `reset_event` it
        forgets all scores.
        """
        engine.add_event_handler(event, self)
        (engine if reset_engine is None else reset_engine).add_event_handler(reset_event, self.reset)

    def state_dict(self) -> dict[str, Any]:
        return {"counter": self.counter, "best_score": self.best_score, "threshold_mode": self.threshold_mode}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.counter, self.best_score = state_dict["counter"], state_dict["best_score"]
        self.threshold_mode = state_dict.get("threshold_mode", self.threshold_mode)
