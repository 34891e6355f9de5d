"""A backward pass and the end of its batch, each by itself: several losses of a batch, steps by hand."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update, UpdateEvents
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision


def made():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches(number):
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(number, 4, 3, generator=generator))


def losses_of(model, batch):
    prediction = model(batch)
    return prediction.square().mean(), (prediction - 1).abs().mean()


def by_hand(windows, clip=None):
    """Each window's mean of its batches' two losses."""
    model, optimizer = made()
    for window in windows:
        optimizer.zero_grad()
        for batch in window:
            (sum(losses_of(model, batch)) / len(window)).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def trained(step_of, data, *handlers, epochs=1):
    model, optimizer = made()

    def step(engine, batch):
        return step_of(update, model, batch)

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    engine.attach(*handlers)
    engine.run(data, max_epochs=epochs)
    return model, update


def two_losses(update, model, batch):
    with update.forward():
        first, second = losses_of(model, batch)
    update.accumulate(first, retain_graph=True)
    update.accumulate(second)
    update.close()


def assert_same(ours, theirs):
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_losses_of_a_batch_add_up_and_batches_are_averaged(window) -> None:
    data = batches(5)
    handlers = [GradientAccumulation(window), ClipGradients(norm=0.5)]
    model, update = trained(two_losses, data, *handlers)
    assert_same(model, by_hand([data[start : start + window] for start in range(0, 5, window)], clip=0.5))
    assert update.steps == -(-5 // window)


def test_a_loss_scaler_sees_all_of_them() -> None:
    data = batches(4)
    model, update = trained(two_losses, data, MixedPrecision("fp16", init_scale=4.0))
    plain, _ = trained(two_losses, data)
    assert update.steps == 4
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_backward_is_both_to_the_bit() -> None:
    def one_loss(update, model, batch):
        with update.forward():
            loss, _ = losses_of(model, batch)
        update.accumulate(loss)
        update.close()

    def backward(update, model, batch):
        with update.forward():
            loss, _ = losses_of(model, batch)
        update.backward(loss)

    data = batches(5)
    ours, _ = trained(one_loss, data, GradientAccumulation(2))
    theirs, _ = trained(backward, data, GradientAccumulation(2))
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_micro_batches_by_hand_with_weights() -> None:
    def step(update, model, batch):
        for part in batch.split([1, 3]):
            with update.forward():
                loss = model(part).square().mean()
            update.accumulate(loss, weight=len(part))
        update.close()

    data = batches(3)
    model, update = trained(step, data)
    twin, optimizer = made()
    for batch in data:
        optimizer.zero_grad()
        twin(batch).square().mean().backward()
        optimizer.step()
    assert_same(model, twin)
    assert update.steps == 3


def every_third(update, model, batch):
    """Steps by hand after every third iteration."""
    with update.forward():
        loss, _ = losses_of(model, batch)
    update.accumulate(loss / 3)
    if update.engine.state.iteration % 3 == 0:
        update.close()


def by_hand_every_third(data):
    model, optimizer = made()
    for place, batch in enumerate(data, start=1):
        (losses_of(model, batch)[0] / 3).backward()
        if place % 3 == 0 or place == len(data):
            optimizer.step()
            optimizer.zero_grad()
    return model


def test_an_epochs_end_steps_with_what_is_open() -> None:
    data = batches(7)
    model, update = trained(every_third, data)
    assert update.steps == 3
    assert_same(model, by_hand_every_third(data))


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_an_open_batch_goes_on_in_another_process(stop) -> None:
    data = batches(7)

    def engine_of(model, optimizer):
        engine = Engine(lambda engine, batch: every_third(update, model, batch))
        update = Update(engine, model, optimizer)
        return engine

    model, optimizer = made()
    engine = engine_of(model, optimizer)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), engine.interrupt)
    engine.run(data, max_epochs=1)
    state, weights, momenta = engine.state_dict(), model.state_dict(), optimizer.state_dict()
    other, optimizer = made()
    other.load_state_dict(weights)
    optimizer.load_state_dict(momenta)
    engine = engine_of(other, optimizer)
    engine.load_state_dict(state)
    engine.run(data, max_epochs=1)
    assert_same(other, by_hand_every_third(data))


def test_a_window_counts_the_updates_batches_not_iterations() -> None:
    """A critic that is trained twice a batch, beside a generator that is trained once."""
    model, optimizer = made()
    other, other_optimizer = made()
    stepped = []

    def step(engine, batch):
        for _ in range(2):
            with critic.forward():
                loss, _ = losses_of(model, batch)
            critic.backward(loss)
        with generator.forward():
            loss, _ = losses_of(other, batch)
        generator.backward(loss)

    engine = Engine(step)
    critic = Update(engine, model, optimizer, name="critic")
    generator = Update(engine, other, other_optimizer, name="generator")
    engine.attach(GradientAccumulation(4))
    for update in (critic, generator):
        update.add_event_handler(
            UpdateEvents.STEP_COMPLETED, lambda engine, update: stepped.append((update.name, engine.state.iteration))
        )
    engine.run(batches(4), max_epochs=1)
    assert stepped == [("critic", 2), ("critic", 4), ("generator", 4)]


def test_updates_that_take_turns() -> None:
    """Each counts its own batches; the epoch's end gives each the mean of what it has."""
    data = batches(7)
    models = [made(), made()]

    def step(engine, batch):
        update = updates[engine.state.iteration % 2]
        with update.forward():
            loss, _ = losses_of(update.modules["model"], batch)
        update.accumulate(loss)
        update.close()

    engine = Engine(step)
    updates = [Update(engine, *pair, name=str(place)) for place, pair in enumerate(models)]
    engine.attach(GradientAccumulation(2))
    engine.run(data, max_epochs=1)
    for place, windows in ((1, [data[0:3:2], data[4:7:2]]), (0, [data[1:4:2], data[5:6]])):
        model, optimizer = made()
        for window in windows:
            optimizer.zero_grad()
            for batch in window:
                (losses_of(model, batch)[0] / len(window)).backward()
            optimizer.step()
        assert_same(models[place][0], model)


def test_closing_what_did_not_go_backward_is_an_error() -> None:
    def step(update, model, batch):
        losses_of(model, batch)[0].backward()
        update.close()

    with pytest.raises(RuntimeError, match=r'update "default" is to be closed, but nothing went backward in it: .*'):
        trained(step, batches(1))


def test_a_batch_that_was_given_up_is_passed_over() -> None:
    def step(update, model, batch):
        try:
            with update.forward():
                loss, _ = losses_of(model, batch)
                if update.engine.state.iteration == 2:
                    raise MemoryError
            update.accumulate(loss)
        except MemoryError:
            update.abandon()
        update.close()

    data = batches(4)
    model, update = trained(step, data)
    twin, _ = trained(lambda update, model, batch: update.backward(losses_of(model, batch)[0]), [data[0], *data[2:]])
    assert update.steps == 3
    assert_same(model, twin)
