"""What is logged and not delivered yet: no training waits for it, and a checkpoint holds it."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from leyden.engine import Engine, Events
from leyden.handlers import Checkpoint
from leyden.handlers.loggers import Value

from .test_logger import ListLogger


class SlowLogger(ListLogger):
    """A backend that takes nothing until it is released; it knows how long its states took."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.released = threading.Event()
        self.times: list[float] = []

    def _write(self, values: list[Value]) -> None:
        self.released.wait()
        super()._write(values)

    def state_dict(self) -> dict[str, Any]:
        began = time.perf_counter()
        state = super().state_dict()
        self.times.append(time.perf_counter() - began)
        return state


def engine_with(logger: ListLogger) -> Engine:
    engine = Engine(lambda engine, batch: float(engine.state.iteration))
    engine.attach(logger)
    return engine


def test_saving_does_not_wait_for_a_slow_backend(tmp_path: Path) -> None:
    logger = SlowLogger(every=1)
    engine = engine_with(logger)
    engine.attach(Checkpoint(tmp_path, extra={"model": Empty()}))
    engine.add_event_handler(Events.COMPLETED, logger.released.set, order=1000)
    engine.run(range(3), max_epochs=3)
    assert len(logger.times) >= 3
    assert max(logger.times) < 1.0, "a wait took five seconds"
    assert len(logger.curves()["train/loss"]) == 9


class Empty:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("checkpoint_first", [True, False])
def test_a_checkpoint_stands_for_what_is_logged_at_its_moment(tmp_path: Path, checkpoint_first: bool) -> None:
    released = threading.Event()

    class StuckLogger(ListLogger):
        def _write(self, values: list[Value]) -> None:
            released.wait()
            super()._write(values)

    def make(logger: ListLogger) -> Engine:
        engine = Engine(lambda engine, batch: float(engine.state.iteration))
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(accuracy=e.state.epoch))
        checkpoint = Checkpoint(tmp_path, resume="auto", extra={"model": Empty()})
        engine.attach(*((checkpoint, logger) if checkpoint_first else (logger, checkpoint)))
        return engine

    with pytest.warns(UserWarning, match="5 values and the end of the run could not be delivered .* are lost, unless"):
        make(StuckLogger(every=1, patience=0.1)).run(range(2), max_epochs=1)
    released.set()
    after = StuckLogger(every=1)
    make(after).run(range(2), max_epochs=2)
    curves = after.curves()
    assert curves["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert curves["train/accuracy"] == [(2, 1.0), (4, 2.0)]


def test_numbers_of_every_kind_and_parameters_are_held(tmp_path: Path) -> None:
    logger = ListLogger(every=None, patience=0.1)
    logger.broken = True
    engine = engine_with(logger)
    numbers = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "é": 0.1}

    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        logger.log_metrics(numbers, step=7)

    with pytest.warns(UserWarning, match="could not be delivered"):
        engine.run(range(1))
    after = ListLogger(every=None)
    resumed = engine_with(after)
    resumed.load_state_dict(engine.state_dict())
    resumed.run(max_epochs=1)
    found = {name: [(step, repr(number)) for step, number in points] for name, points in after.curves().items()}
    assert {name: found[name] for name in numbers} == {name: [(7, repr(number))] for name, number in numbers.items()}


def test_a_run_from_the_beginning_does_not_get_what_an_earlier_one_left() -> None:
    logger = ListLogger(every=1, patience=0.1)
    engine = engine_with(logger)
    logger.broken = True
    with pytest.warns(UserWarning, match="could not be delivered"):
        engine.run(range(2))
    logger.broken = False
    engine.run(range(3), max_epochs=1)
    assert logger.curves()["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_an_error_at_the_start_ends_the_backends_run() -> None:
    class HalfOpenLogger(ListLogger):
        def _write_params(self, params: dict[str, str]) -> None:
            raise ConnectionError("away")

    logger = HalfOpenLogger()
    with pytest.raises(ConnectionError, match="away"):
        engine_with(logger).run(range(2))
    assert logger.story == ["opened", "failed by ConnectionError('away')"]


@pytest.mark.parametrize(("name", "ending"), [("TrialPruned", "stopped"), ("RuntimeError", "failed")])
def test_a_pruned_trial_did_not_fail(name: str, ending: str) -> None:
    kind = type(name, (RuntimeError,), {})
    logger = ListLogger()
    engine = engine_with(logger)

    @engine.on(Events.ITERATION_COMPLETED(once=2))
    def prune() -> None:
        raise kind("no good")

    with pytest.raises(kind):
        engine.run(range(3))
    assert logger.story == ["opened", f"{ending} by {name}('no good')"]
