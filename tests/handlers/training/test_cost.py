"""What the handlers of a step cost, in calls of Python and C functions: counted, so it is the same on every machine."""

import contextlib

import pytest
import torch
from by_hand import batches, net, sgd
from counting import calls_a_step
from torch import nn

from leyden.engine import Engine, Events, supervised_trainer
from leyden.handlers import (
    ClipGradients,
    DataParallel,
    EarlyStopping,
    Evaluate,
    GradientAccumulation,
    MixedPrecision,
    Schedule,
    TerminateOnNan,
    TimeLimit,
)


def by_hand(clip=False, autocast=False, scheduled=False):
    model = net()
    optimizer, loss_fn = sgd(model), nn.MSELoss()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99) if scheduled else None
    context = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()

    def run(number):
        for x, y in data[:number]:
            with context:
                loss = loss_fn(model(x), y)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if scheduler is not None:
                scheduler.step()

    data = batches(60)
    return calls_a_step(run)


def by_engine(*make):
    """Calls a step of a trainer with the handlers that the functions make from it and its optimizer."""
    model = net()
    optimizer = sgd(model)
    trainer = supervised_trainer(model, optimizer, nn.MSELoss())
    trainer.attach(*(each(optimizer) for each in make))
    data = {number: batches(number) for number in (3, 20, 60)}

    def run(number):
        trainer.state.max_epochs = None
        trainer.run(data[number])

    return calls_a_step(run)


def exponential(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)


def evaluate_at_the_end(optimizer):
    return Evaluate(Engine(lambda engine, batch: None, training=False), [None])


@pytest.fixture(scope="module")
def nothing_attached():
    return by_engine()


def test_an_engine_alone_adds_few_calls(nothing_attached):
    assert nothing_attached <= 1.25 * by_hand()


IDLE = {
    "MixedPrecision in fp32": lambda optimizer: MixedPrecision("fp32"),
    "Evaluate": evaluate_at_the_end,
    "Evaluate each 1000 iterations": lambda optimizer: Evaluate(
        Engine(lambda engine, batch: None, training=False), [None], on=Events.ITERATION_COMPLETED(every=1000)
    ),
    "EarlyStopping": lambda optimizer: EarlyStopping(lambda engine: 1.0, mode="max"),
    "TerminateOnNan each 1000 iterations": lambda optimizer: TerminateOnNan(every=1000),
    "TimeLimit": lambda optimizer: TimeLimit(3600),
    "DataParallel in one process": lambda optimizer: DataParallel(),
}


@pytest.mark.parametrize("kind", IDLE)
def test_a_handler_with_nothing_to_do_in_a_step_costs_nothing(kind, nothing_attached):
    assert by_engine(IDLE[kind]) == pytest.approx(nothing_attached, abs=0.2)  # a run may differ by a thread's start


@pytest.mark.parametrize("arguments", [{"per": "epoch"}, {"every": 1000}], ids=str)
def test_a_schedule_that_waits_costs_nothing(arguments, nothing_attached):
    """But the one call that torch's schedulers put around optimizer.step."""
    assert by_engine(lambda optimizer: Schedule(exponential(optimizer), **arguments)) == nothing_attached + 1


# Each beside the same loop by hand: what is counted is the handler, not the work that torch does for it.
BUSY = {
    "ClipGradients": (lambda optimizer: ClipGradients(norm=1.0), {"clip": True}, 0),
    "MixedPrecision": (lambda optimizer: MixedPrecision("bf16"), {"autocast": True}, 25),
    "Schedule": (lambda optimizer: Schedule(exponential(optimizer)), {"scheduled": True}, 25),
    "GradientAccumulation": (lambda optimizer: GradientAccumulation(1), {}, 5),
    "TerminateOnNan": (lambda optimizer: TerminateOnNan(), {}, 20),
}


@pytest.mark.parametrize("kind", BUSY)
def test_a_handler_at_work_adds_few_calls_to_those_of_torch(kind, nothing_attached, record_property):
    make, options, allowed = BUSY[kind]
    added = by_engine(make) - nothing_attached
    added_by_hand = by_hand(**options) - by_hand()
    record_property("calls", added)
    print(f"{kind}: {added:.2f} calls a step, of which by hand {added_by_hand:.2f}")
    assert added - added_by_hand <= allowed
