"""The span of a batch: from its first forward pass to the end of its last backward pass, left in every case."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update, UpdateEvents, supervised_trainer


def trainer_of(step_of, log, *, data=(1.0, 2.0, 3.0), fails_on=None):
    model = nn.Linear(1, 1)

    @contextmanager
    def span(batch):
        log.append(("in", batch.item()))
        try:
            yield
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        finally:
            log.append(("out", batch.item()))

    def step(engine, batch):
        return step_of(update, model, batch)

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    update.slots.claim("span", span, span)
    for event in UpdateEvents:
        engine.add_event_handler(event, log.append, event.name)
    return engine, [torch.tensor([each]) for each in data]


def test_it_lies_around_all_passes_of_the_batch() -> None:
    log = []

    def step(update, model, batch):
        with update.forward():
            loss = model(batch).square().mean()
        log.append("between")
        with update.forward():
            other = model(batch).abs().mean()
        update.accumulate(loss)
        update.accumulate(other)
        update.close()

    engine, data = trainer_of(step, log, data=(1.0,))
    engine.run(data, max_epochs=1)
    assert log == [
        ("in", 1.0),
        "FORWARD_STARTED",
        "FORWARD_COMPLETED",
        "between",
        "FORWARD_STARTED",
        "FORWARD_COMPLETED",
        "BACKWARD_STARTED",
        "BACKWARD_COMPLETED",
        "BACKWARD_STARTED",
        "BACKWARD_COMPLETED",
        ("out", 1.0),
        "GRADIENTS_READY",
        "STEP_COMPLETED",
    ]


def spans(log):
    return [each for each in log if isinstance(each, tuple) or each.endswith("Error")]


def test_an_error_in_the_forward_pass_that_the_step_catches() -> None:
    log = []

    def step(update, model, batch):
        try:
            with update.forward():
                loss = model(batch).square().mean()
                if batch == 2:
                    raise MemoryError
        except MemoryError:
            update.abandon()
            return
        update.backward(loss)

    engine, data = trainer_of(step, log)
    engine.run(data, max_epochs=1)
    assert spans(log) == [
        ("in", 1.0), ("out", 1.0), ("in", 2.0), "MemoryError", ("out", 2.0), ("in", 3.0), ("out", 3.0)
    ]  # fmt: skip


def test_a_missing_backward_pass() -> None:
    log = []

    def step(update, model, batch):
        with update.forward():
            loss = model(batch).square().mean()
        if batch != 2:
            update.backward(loss)

    engine, data = trainer_of(step, log)
    engine.run(data, max_epochs=2)
    assert spans(log) == [(side, each) for each in (1.0, 2.0, 3.0) for side in ("in", "out")] * 2


@pytest.mark.parametrize("place", ["forward", "between", "backward", "handler"])
def test_an_error_that_ends_the_run(place) -> None:
    log = []

    def step(update, model, batch):
        with update.forward():
            loss = model(batch).square().mean()
            if place == "forward":
                raise ZeroDivisionError
        if place == "between":
            raise ZeroDivisionError
        if place == "backward":
            loss.register_hook(fail)
        update.backward(loss)

    def fail(_):
        raise ZeroDivisionError

    engine, data = trainer_of(step, log, data=(1.0,))
    if place == "handler":
        engine.add_event_handler(UpdateEvents.BACKWARD_COMPLETED, fail, None)
    with pytest.raises(ZeroDivisionError):
        engine.run(data, max_epochs=1)
    assert [each for each in log if isinstance(each, tuple)] == [("in", 1.0), ("out", 1.0)]


def test_each_part_of_a_batch_by_itself() -> None:
    """Several backward passes of an update in an iteration have a span each."""
    log = []

    def step(update, model, batch):
        for _ in range(2):
            with update.forward():
                loss = model(batch).square().mean()
            update.backward(loss)

    engine, data = trainer_of(step, log, data=(1.0,))
    engine.run(data, max_epochs=1)
    assert spans(log) == [("in", 1.0), ("out", 1.0)] * 2


def test_a_supervised_trainer_gives_its_whole_batch() -> None:
    seen = []
    model = nn.Linear(1, 1)
    trainer = supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())

    @contextmanager
    def span(batch):
        seen.append(batch)
        yield

    trainer.updates["default"].slots.claim("span", span, span)
    data = [(torch.ones(2, 1), torch.ones(2, 1))]
    trainer.run(data, max_epochs=1)
    assert [each is data[0] for each in seen] == [True]
