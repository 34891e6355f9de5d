"""What the handlers of data cost in a step, in calls of Python and C functions; the work of loading is not theirs."""

import gc
import sys

import pytest
import torch
from random_samples import engine_on

from leyden.handlers import Evaluate
from leyden.handlers.data import DeviceTransfer, DryRun, LimitBatches, Overfit, Reproducible


def calls_a_step(*handlers, data=range):
    """How many calls one more step makes, of a process that does nothing."""
    engine, _ = engine_on(*handlers)

    def calls(number):
        count = 0

        def note(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        batches = data(number)
        engine.state.max_epochs = None
        sys.setprofile(note)
        try:
            engine.run(batches)
        finally:
            sys.setprofile(None)
        return count

    calls(3)
    gc.collect()
    gc.disable()
    try:
        return (min(calls(60) for _ in range(3)) - min(calls(20) for _ in range(3))) / 40
    finally:
        gc.enable()


def tensors(number):
    return [(torch.ones(1), torch.ones(1))] * number


@pytest.mark.parametrize(
    "make",
    [
        DeviceTransfer,
        Reproducible,
        lambda: Reproducible(deterministic=True),
        lambda: LimitBatches(1.0),
        lambda: DryRun(100),
        lambda: Evaluate(engine_on(Reproducible(), LimitBatches(1))[0], [1]),
    ],
    ids=["DeviceTransfer on the CPU", "Reproducible", "deterministic", "LimitBatches", "DryRun", "of an evaluator"],
)
def test_a_step_costs_what_it_costs_without(make):
    assert calls_a_step(make()) == calls_a_step()


def test_copies_of_kept_batches_are_all_that_overfit_costs():
    assert calls_a_step(Overfit(100)) <= calls_a_step() + 10


def test_a_transfer_adds_few_calls_to_those_of_moving_the_tensors():
    moves = 2
    assert calls_a_step(DeviceTransfer("meta"), data=tensors) <= calls_a_step(data=tensors) + moves + 25
