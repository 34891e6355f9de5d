"""A batch that is driven: to the bit the plain step, and a slot for who calls forward, loss and backward instead."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update, UpdateEvents, supervised_trainer
from leyden.engine.step import ModelCall, call_arguments
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision

loss_fn = nn.MSELoss()


def made():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches(number=7):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(number)
    ]  # fmt: skip


HANDLERS = {
    "nothing": list,
    "all": lambda: [GradientAccumulation(2), ClipGradients(norm=0.5), MixedPrecision("fp16", init_scale=8.0)],
    "weights": lambda: [GradientAccumulation(3, weight=lambda batch: len(batch[0]))],
}


def trained(step_of, handlers, driver=None):
    model, optimizer = made()
    torch.manual_seed(2)
    events = []

    def step(engine, batch):
        return step_of(update, model, batch)

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    if driver is not None:
        update.slots.claim("driver", driver, driver)
    for event in UpdateEvents:
        engine.add_event_handler(event, events.append, event.name)
    engine.attach(*handlers)
    engine.run(batches(), max_epochs=1)
    return model, events


def plain(update, model, batch):
    x, y = batch
    with update.forward():
        loss = loss_fn(model(x), y)
    update.backward(loss)


def driven(update, model, batch):
    x, y = batch
    prediction, loss = update.drive(model, x, y, loss_fn)
    assert torch.equal(loss, loss_fn(prediction, y)) or update.slots.autocast is not None


@pytest.mark.parametrize("handlers", HANDLERS)
def test_without_a_driver_it_is_the_plain_step_to_the_bit(handlers) -> None:
    ours, events = trained(driven, HANDLERS[handlers]())
    theirs, plain_events = trained(plain, HANDLERS[handlers]())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    assert events == plain_events


class Halves:
    """Runs each half of a batch as a micro-batch, forward and backward in turn."""

    def drive(self, update, forward, inputs, targets, loss_fn, transform):
        losses = []
        for x, y in zip(inputs.chunk(2), targets.chunk(2), strict=True):
            args, kwargs = call_arguments(forward, x)
            loss = loss_fn(forward(*args, **kwargs), y)
            transform(loss, 2).backward()
            losses.append(loss.detach())
        return None, torch.stack(losses).mean()


def without_dropout(step):
    def eval_step(update, model, batch):
        model.eval()
        step(update, model, batch)

    return eval_step


def only_drive(update, model, batch):
    update.drive(model, *batch, loss_fn)


@pytest.mark.parametrize("handlers", HANDLERS)
def test_a_driver_gets_window_weight_and_scale_with_the_losses(handlers) -> None:
    ours, events = trained(without_dropout(only_drive), HANDLERS[handlers](), Halves())
    theirs, plain_events = trained(without_dropout(plain), HANDLERS[handlers]())
    bounds = {"rtol": 1e-2, "atol": 1e-2} if handlers == "all" else {"rtol": 1e-5, "atol": 1e-6}
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, **bounds)
    assert sorted(events) == sorted(plain_events)
    assert events[:4] == ["FORWARD_STARTED", "BACKWARD_STARTED", "BACKWARD_COMPLETED", "FORWARD_COMPLETED"]


class Silent:
    """As a rank that holds the first stage of a pipeline: it has gradients, and neither output nor loss."""

    def drive(self, update, forward, inputs, targets, loss_fn, transform):
        for parameter in update.trainable():
            parameter.grad = torch.full_like(parameter, 8.0)
        return None, None


def test_a_rank_without_a_loss_closes_the_window_too() -> None:
    model, optimizer = made()
    trainer = supervised_trainer(model, optimizer, loss_fn)
    update = trainer.updates["default"]
    driver = Silent()
    update.slots.claim("driver", driver, driver)
    trainer.attach(MixedPrecision("fp16", init_scale=8.0), GradientAccumulation(2))
    before = [p.detach().clone() for p in model.parameters()]
    state = trainer.run(batches(2), max_epochs=1)
    assert update.steps == 1
    assert state.output is None
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1)


def test_an_error_of_the_driver_gives_the_batch_up() -> None:
    class Broken:
        def drive(self, update, *_):
            raise ArithmeticError

    model, optimizer = made()

    def step(engine, batch):
        try:
            update.drive(model, *batch, loss_fn)
        except ArithmeticError:
            update.slots.driver = None

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    update.slots.claim("driver", Broken(), Broken())
    engine.run(batches(3), max_epochs=1)
    assert update.steps == 2


def test_how_a_model_is_called_is_known_to_a_driver() -> None:
    class Two(nn.Module):
        def forward(self, a, b):
            return a - b

    model = Two()
    assert call_arguments(model, 3) == ((3,), {})
    assert call_arguments(ModelCall(model, None, None, (0, 1)), (3, 1)) == ((3, 1), {})
    assert call_arguments(ModelCall(model, None, None, {"b": 0}), {"b": 3}) == ((), {"b": 3})
    with pytest.raises(ValueError, match="model_fn calls the whole model"):
        call_arguments(ModelCall(model, lambda model, x: x, None, None), 3)


def test_a_model_called_by_one_name() -> None:
    class Named(nn.Linear):
        def forward(self, *, x):
            return super().forward(x)

    model = Named(3, 1)
    trainer = supervised_trainer(
        model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn, model_inputs={"x": "image"}
    )
    trainer.run([{"image": x, "target": y} for x, y in batches(2)], max_epochs=1)
    assert trainer.state.step == 2
