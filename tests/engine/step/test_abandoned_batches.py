"""A step that catches an error of its backward pass and leaves the batch out trains as the loop by hand does, which
clears the gradients before each batch.
"""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update
from leyden.handlers import GradientAccumulation, MixedPrecision


class Breaks(torch.autograd.Function):
    """Fails on its way back, when the gradients of the layers behind it are there already."""

    @staticmethod
    def forward(ctx, x, broken):
        ctx.broken = broken
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.broken:
            raise RuntimeError("out of memory")
        return gradient, None


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x, broken):
        return self.second(Breaks.apply(self.first(x), broken)).square().mean()


def batches(broken, number=8):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, generator=generator), index in broken) for index in range(number)]


def made():
    torch.manual_seed(0)
    model = TwoLayers()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def trained(data, *handlers, weight=False):
    model, optimizer = made()

    def step(engine, batch):
        try:
            with update.forward():
                loss = model(*batch)
            update.backward(loss, weight=3.0 if weight else None)
        except RuntimeError:
            return None
        return loss.detach()

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    engine.attach(*handlers)
    engine.run(data, max_epochs=1)
    return model, update


def by_hand(windows):
    """Steps with the mean gradient of each window of batches."""
    model, optimizer = made()
    for window in windows:
        optimizer.zero_grad()
        for batch in window:
            (model(*batch) / len(window)).backward()
        optimizer.step()
    return model


def assert_same(ours, theirs):
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("broken", [[1], [0], [7], [2, 3]])
def test_the_batch_leaves_no_partial_gradient(broken) -> None:
    data = batches(broken)
    model, update = trained(data)
    assert_same(model, by_hand([[batch] for batch in data if not batch[1]]))
    assert update.steps == len(data) - len(broken)


def test_nor_does_its_weight_count() -> None:
    data = batches([1])
    model, _ = trained(data, weight=True)
    assert_same(model, by_hand([[batch] for batch in data if not batch[1]]))


@pytest.mark.parametrize("weight", [False, True])
def test_in_a_window_the_batches_before_go_with_it(weight) -> None:
    """Their gradients can't be told from the partial ones; the next batch begins a window."""
    data = batches([2])
    with pytest.warns(UserWarning, match=r'update "default": .* the 2 batches before it in its window'):
        model, _ = trained(data, GradientAccumulation(4), weight=weight)
    assert_same(model, by_hand([data[3:7], data[7:]]))


def test_at_a_windows_beginning_nothing_is_lost_but_the_batch() -> None:
    data = batches([0, 5])
    model, _ = trained(data, GradientAccumulation(4))
    assert_same(model, by_hand([data[1:5], data[6:]]))


def test_the_scaler_goes_on() -> None:
    data = batches([1])
    model, update = trained(data, MixedPrecision("fp16", init_scale=8.0))
    assert update.steps == 7
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_an_error_that_is_not_caught_leaves_nothing_for_the_next_run() -> None:
    model, optimizer = made()

    def step(engine, batch):
        with update.forward():
            loss = model(*batch)
        update.backward(loss)

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    engine.attach(GradientAccumulation(2))
    data = batches([1])
    with pytest.warns(UserWarning, match="in its window"), pytest.raises(RuntimeError, match="out of memory"):
        engine.run(data[:2], max_epochs=1)
    assert update.rank_state_dict() == {}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_error_of_a_handler_is_one_of_the_backward_pass() -> None:
    model, optimizer = made()
    data = batches([])

    def step(engine, batch):
        try:
            with update.forward():
                loss = model(*batch)
            update.backward(loss)
        except ZeroDivisionError:
            return

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    from leyden.engine import UpdateEvents

    @update.engine.on(UpdateEvents.BACKWARD_COMPLETED)
    def look(engine):
        if engine.state.iteration == 2:
            raise ZeroDivisionError

    engine.run(data, max_epochs=1)
    assert_same(model, by_hand([[batch] for index, batch in enumerate(data) if index != 1]))


def test_a_batch_left_out_by_hand() -> None:
    """A loss that the step does not like, in a window: nothing went backward, so nothing is lost."""
    model, optimizer = made()
    data = batches([])

    def step(engine, batch):
        with update.forward():
            loss = model(*batch)
        if engine.state.iteration in (2, 8):
            return
        update.backward(loss)

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    engine.attach(GradientAccumulation(3))
    engine.run(data, max_epochs=1)
    assert Events.STARTED is not None
    kept = [batch for index, batch in enumerate(data) if index + 1 not in (2, 8)]
    assert_same(model, by_hand([kept[:3], kept[3:]]))
