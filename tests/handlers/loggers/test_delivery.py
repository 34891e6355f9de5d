"""What is refused is set aside, and all else arrives, in order."""

import pytest

from leyden.engine import Engine, Events
from leyden.handlers.loggers import Value
from leyden.handlers.loggers.delivery import Delivery

from .test_logger import ListLogger


class RefusedError(Exception):
    pass


class Receiver:
    """Refuses the bad; does not answer the first time after the `n`-th item."""

    def __init__(self, bad: set[int], away_at: int | None = None) -> None:
        self.bad, self.away_at = bad, away_at
        self.got: list[int] = []
        self.calls = 0

    def send(self, items: list[int]) -> None:
        self.calls += 1
        if self.bad & set(items):
            raise RefusedError(f"one of {len(items)}")
        if self.away_at in items:
            self.away_at = None
            raise OSError("nobody answers")
        self.got += [item for item in items if item not in self.got]


@pytest.mark.parametrize("bad", [set(), {0}, {99}, {17, 18, 64}, set(range(100))])
@pytest.mark.parametrize("away_at", [None, 50])
def test_what_is_refused_is_set_aside(bad: set[int], away_at: int | None) -> None:
    receiver = Receiver(bad, away_at)
    delivery = Delivery(receiver.send, lambda error: isinstance(error, RefusedError), interval=0.01)
    delivery.put(range(100))
    assert delivery.close(lambda: None, timeout=20)
    assert receiver.got == [item for item in range(100) if item not in bad]
    assert [item for item, _ in delivery.take_refused()] == sorted(bad)
    assert delivery.waiting == []
    assert receiver.calls <= 2 + 16 * max(len(bad), 1)


def test_an_end_that_is_refused_is_not_tried_for_ever() -> None:
    def last() -> None:
        raise RefusedError("the run was deleted")

    delivery = Delivery(lambda items: None, lambda error: isinstance(error, RefusedError))
    assert delivery.close(last, timeout=10)
    assert str(delivery.end_refused) == "the run was deleted"


class PickyLogger(ListLogger):
    def _write(self, values: list[Value]) -> None:
        if bad := [value.name for value in values if "bad" in value.name]:
            raise ValueError(f"bad name {bad[0]}")
        super()._write(values)

    def _write_params(self, params: dict[str, str]) -> None:
        if "bad" in params:
            raise ValueError("bad parameter")
        super()._write_params(params)


def test_a_value_or_parameter_that_no_backend_takes_is_told_once_and_loses_no_other() -> None:
    engine, logger = Engine(lambda engine, batch: 1.0), PickyLogger(every=1, params={"bad": 1, "good": 2})
    engine.attach(logger)

    @engine.on(Events.ITERATION_COMPLETED)
    def log() -> None:
        logger.log_metrics({"bad": 1.0, "good": 2.0}, step=engine.state.iteration)
        logger.log_params({"late": 3})

    with pytest.warns(UserWarning, match=r"a list refuses these, which are left out: 'bad' \(bad (name|param)") as told:
        engine.run(range(4))
    assert len(told) == 1
    curves = logger.curves()
    assert curves["train/loss"] == [(step, 1.0) for step in range(1, 5)]
    assert curves["good"] == [(step, 2.0) for step in range(1, 5)]
    assert "bad" not in curves
    assert {"good": "2", "late": "3"}.items() <= logger.kept_params.items()
    assert "bad" not in logger.kept_params
    assert logger.story == ["opened", "finished"]
