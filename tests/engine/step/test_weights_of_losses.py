"""What a weight is of: of a batch, however many losses it has, or of a loss, where each has its own."""

import math

import numpy
import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update
from leyden.handlers import GradientAccumulation


def weight_after(step, data, *handlers):
    """The one weight of a model, from 0, after steps of length 1."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    engine = Engine(lambda engine, batch: step(update, lambda: model(torch.ones(1, 1)).sum(), batch))
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=1.0))
    engine.attach(*handlers)
    engine.run(data, max_epochs=1)
    return model.weight.item()


def two_losses(update, output, batch):
    """Of gradients batch[0] and batch[1], from a forward pass each."""
    for factor in batch[:2]:
        with update.forward():
            loss = output() * factor
        update.accumulate(loss)
    update.close()


def both_at_once(update, output, batch):
    with update.forward():
        losses = [output() * factor for factor in batch[:2]]
    update.accumulate(losses)
    update.close()


@pytest.mark.parametrize("step", [two_losses, both_at_once])
def test_the_weight_of_a_batch_counts_once_for_all_its_losses(step) -> None:
    data = [(1.0, 2.0, 1.0), (3.0, 5.0, 3.0)]
    assert weight_after(step, data, GradientAccumulation(2)) == -(3 + 8) / 2
    evenly = GradientAccumulation(2, weight=lambda batch: 4.0)
    assert weight_after(step, data, evenly) == -(3 + 8) / 2
    unevenly = GradientAccumulation(2, weight=lambda batch: batch[2])
    assert weight_after(step, data, unevenly) == -(1 * 3 + 3 * 8) / 4


def test_it_counts_for_each_of_several_batches_of_an_iteration() -> None:
    def step(update, output, batch):
        two_losses(update, output, batch)
        two_losses(update, output, [2 * each for each in batch])

    data = [(1.0, 2.0), (3.0, 5.0)]
    heavier = iter([1.0, 1.0, 3.0, 3.0])
    got = weight_after(step, data, GradientAccumulation(4, weight=lambda batch: next(heavier)))
    assert got == pytest.approx(-(3 + 6 + 3 * 8 + 3 * 16) / 8)


def test_it_counts_for_each_iteration_of_a_batch_that_stays_open() -> None:
    def step(update, output, batch):
        for factor in batch[:2]:
            with update.forward():
                loss = output() * factor
            update.accumulate(loss)
        if update.engine.state.iteration == 2:
            update.close()

    data = [(1.0, 2.0, 1.0), (3.0, 5.0, 3.0)]
    got = weight_after(step, data, GradientAccumulation(1, weight=lambda batch: batch[2]))
    assert got == -(1 * 3 + 3 * 8) / 4


def by_backward(weight):
    def step(update, output, batch):
        with update.forward():
            loss = output() * batch
        update.backward(loss, weight=weight)

    return lambda: weight_after(step, [1.0, 3.0])


def by_slot(weight):
    def step(update, output, batch):
        with update.forward():
            loss = output() * batch
        update.backward(loss)

    return lambda: weight_after(step, [1.0, 3.0], GradientAccumulation(1, weight=lambda batch: weight))


BY = {'update "default"': by_backward, "GradientAccumulation": by_slot}


@pytest.mark.parametrize("who", BY)
@pytest.mark.parametrize(
    ("weight", "error", "found"),
    [
        (torch.ones(2), ValueError, r"a tensor of shape \(2,\) and torch.float32"),
        (torch.ones(0), ValueError, r"a tensor of shape \(0,\)"),
        (torch.tensor(True), ValueError, "torch.bool"),
        (torch.tensor(1j), ValueError, "torch.complex64"),
        (math.nan, ValueError, "nan"),
        (math.inf, ValueError, "inf"),
        (-1, ValueError, "-1"),
        (numpy.float32(-1), ValueError, "-1"),
        ("3", TypeError, "'3'"),
        (True, TypeError, "True"),
        ([1.0], TypeError, r"\[1.0\]"),
    ],
)
def test_what_is_no_weight_is_told_by_who_takes_it(who, weight, error, found) -> None:
    with pytest.raises(error, match=f"^{who} weighs a batch by .*{found}.*; a weight is a number of things"):
        BY[who](weight)()


def test_a_slot_that_gives_none_gives_no_weight() -> None:
    with pytest.raises(TypeError, match="GradientAccumulation weighs a batch by None"):
        by_slot(None)()


@pytest.mark.parametrize("who", BY)
@pytest.mark.parametrize(
    "weight", [2, 0.5, numpy.int64(3), torch.tensor(2), torch.tensor([2.0]), torch.tensor([[3]])], ids=repr
)
def test_numbers_and_tensors_of_one_element_are_weights(who, weight) -> None:
    assert BY[who](weight)() == -4.0


def test_the_value_of_a_tensor_is_not_looked_at() -> None:
    """It would have the step wait for the device."""
    assert math.isnan(by_backward(torch.tensor(math.nan))())
    assert math.isnan(by_backward(torch.tensor(-2.0))())
