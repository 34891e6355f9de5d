"""fp16: the loss is scaled, and a step whose gradients overflow is skipped together with all that follows a step."""

import pytest
import torch
from by_hand import batches, equal, loss_fn, net, sgd

from leyden.engine import Engine, Events, Update, UpdateEvents, supervised_trainer
from leyden.handlers import ClipGradients, GradientAccumulation, MixedPrecision, Schedule


def fp16_by_hand(model, optimizer, data, window=1, **options):
    """One epoch of torch's own recipe for fp16; gives the scaler."""
    scaler = torch.amp.GradScaler("cpu", **options)
    for i, (x, y, factor) in enumerate(data):
        size = min(window, len(data) - i // window * window)
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_fn(model(x), y) * factor
        scaler.scale(loss if size == 1 else loss / size).backward()
        if (i + 1) % window == 0 or i + 1 == len(data):
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return scaler


def with_factors(number=6, overflow_at=()):
    """Batches with a factor for the loss, infinite at these (counted from 1)."""
    return [(x, y, float("inf") if i in overflow_at else 1.0) for i, (x, y) in enumerate(batches(number), start=1)]


def make_trainer(model, optimizer):
    def process(engine, batch):
        x, y, factor = batch
        with update.forward():
            loss = loss_fn(model(x), y) * factor
        update.backward(loss)
        return loss.detach()

    engine = Engine(process)
    update = Update(engine, model, optimizer)
    return engine


def scaler_state(engine, update="default"):
    return engine.state_dict()["updates"][update]["scaler"]


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("overflow_at", [(), (1,), (3, 4), (6,)])
def test_fp16_is_the_recipe_of_torch_to_the_bit(overflow_at, window):
    ours, theirs = net(), net()
    options = {"init_scale": 1024.0, "growth_interval": 2}
    trainer = make_trainer(ours, sgd(ours))
    trainer.attach(MixedPrecision("fp16", **options), GradientAccumulation(window))
    trainer.run(with_factors(6, overflow_at))
    scaler = fp16_by_hand(theirs, sgd(theirs), with_factors(6, overflow_at), window, **options)
    assert equal(ours, theirs)
    assert scaler_state(trainer) == scaler.state_dict()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_overflows_is_skipped_with_all_that_follows_it(fused):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    trainer = make_trainer(model, optimizer)
    trainer.attach(MixedPrecision("fp16", init_scale=1024.0), Schedule(scheduler))
    events, parameters = [], []
    for event in (UpdateEvents.GRADIENTS_READY, UpdateEvents.STEP_COMPLETED, UpdateEvents.STEP_SKIPPED):
        trainer.add_event_handler(event, events.append, event.value)
    trainer.add_event_handler(UpdateEvents.STEP_SKIPPED, lambda engine: events.append(engine.state.step))

    @trainer.on(Events.ITERATION_COMPLETED)
    def note():
        parameters.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        assert all(parameter.grad is None for parameter in model.parameters())

    state = trainer.run(with_factors(4, overflow_at=[2, 3]))
    stepped = ["gradients_ready", "step_completed"]
    skipped = ["gradients_ready", "step_skipped", 1]
    assert events == [*stepped, *skipped, *skipped, *stepped]
    assert torch.equal(parameters[0], parameters[1])
    assert torch.equal(parameters[1], parameters[2])
    assert not torch.equal(parameters[2], parameters[3])
    assert state.step == 2
    assert scheduler.last_epoch == 2
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**2)
    assert scaler_state(trainer)["scale"] == 256.0


def test_a_scale_that_is_too_large_is_lowered_until_it_fits():
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.attach(MixedPrecision("fp16", init_scale=2.0**40))
    skipped = []
    trainer.add_event_handler(UpdateEvents.STEP_SKIPPED, lambda: skipped.append(1))
    state = trainer.run(with_factors(40))
    assert 0 < len(skipped) < 40
    assert state.step == 40 - len(skipped)
    assert scaler_state(trainer)["scale"] == 2.0 ** (40 - len(skipped))


def test_the_filters_of_step_events_count_only_the_steps_taken():
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.attach(MixedPrecision("fp16", init_scale=1024.0))
    iterations = []
    trainer.add_event_handler(
        UpdateEvents.STEP_COMPLETED(every=2), lambda engine: iterations.append(engine.state.iteration)
    )
    trainer.run(with_factors(6, overflow_at=[1, 3]))
    assert iterations == [4, 6]


def test_gradients_are_clipped_after_they_are_unscaled():
    norms = {}
    for scale in (1.0, 4096.0):
        model = net()
        trainer = make_trainer(model, sgd(model))
        trainer.attach(ClipGradients(norm=0.1), MixedPrecision("fp16", init_scale=scale))
        norms[scale] = trainer.run(with_factors(1)).metrics["grad_norm"]
    assert norms[1.0] == pytest.approx(norms[4096.0], rel=1e-2)


def test_two_updates_have_a_scaler_each():
    models = {"calm": net(), "wild": net()}

    def process(engine, batch):
        x, y, factor = batch
        for update in (calm, wild):
            with update.forward():
                loss = loss_fn(models[update.name](x), y) * (factor if update is wild else 1.0)
            update.backward(loss)

    engine = Engine(process)
    calm, wild = (Update(engine, model, sgd(model), name=name) for name, model in models.items())
    engine.attach(MixedPrecision("fp16", init_scale=64.0))
    skipped = []
    engine.add_event_handler(UpdateEvents.STEP_SKIPPED, lambda engine, update: skipped.append(update.name))
    engine.run(with_factors(3, overflow_at=[2]))
    assert skipped == ["wild"]
    assert scaler_state(engine, "calm")["scale"] == 64.0
    assert scaler_state(engine, "wild")["scale"] == 32.0
    assert (calm.steps, wild.steps) == (3, 2)


def test_an_error_between_unscaling_and_stepping_does_not_bar_the_next_run():
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.attach(MixedPrecision("fp16", init_scale=64.0))
    errors = [RuntimeError("once")]

    @trainer.on(UpdateEvents.GRADIENTS_READY)
    def fail():
        if errors:
            raise errors.pop()

    with pytest.raises(RuntimeError, match="once"):
        trainer.run(with_factors(3))
    trainer.run(with_factors(3))  # goes on after the batch that failed
    assert (trainer.state.iteration, trainer.state.step) == (3, 2)
    assert scaler_state(trainer)["scale"] == 64.0


def test_bf16_scales_nothing():
    model = net()
    trainer = supervised_trainer(model, sgd(model), loss_fn)
    trainer.attach(MixedPrecision("bf16"))
    trainer.run(batches(1))
    assert "scaler" not in trainer.state_dict()["updates"]["default"]


# -- the scaler's state ------------------------------------------------------------------------------------------------


def overflowed():
    """The state of a trainer whose scale has come down from 1024 to 256."""
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.attach(MixedPrecision("fp16", init_scale=1024.0))
    trainer.run(with_factors(3, overflow_at=[1, 2]), max_epochs=1)
    return trainer.state_dict()


def test_the_state_comes_back_to_a_trainer_that_has_run():
    state = overflowed()
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.attach(MixedPrecision("fp16", init_scale=1024.0))
    trainer.run(with_factors(3), max_epochs=1)
    assert scaler_state(trainer)["scale"] == 1024.0
    trainer.load_state_dict(state)
    assert scaler_state(trainer)["scale"] == 256.0
    trainer.run(with_factors(3), max_epochs=2)
    assert scaler_state(trainer)["scale"] == 256.0


def test_the_state_comes_back_to_a_new_trainer():
    state = overflowed()
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.attach(MixedPrecision("fp16", init_scale=1024.0))
    trainer.load_state_dict(state)
    trainer.run(with_factors(3), max_epochs=2)
    assert scaler_state(trainer) == state["updates"]["default"]["scaler"] | {"_growth_tracker": 4}


def test_the_state_of_a_new_trainer_that_has_been_restored_but_not_run():
    state = overflowed()
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.attach(MixedPrecision("fp16", init_scale=1024.0))
    trainer.load_state_dict(state)
    assert scaler_state(trainer)["scale"] == 256.0


def test_the_state_comes_back_when_the_handler_is_attached_after_it_was_loaded():
    state = overflowed()
    model = net()
    trainer = make_trainer(model, sgd(model))
    trainer.load_state_dict(state)
    trainer.attach(MixedPrecision("fp16", init_scale=1024.0))
    trainer.run(with_factors(3), max_epochs=2)
    assert scaler_state(trainer)["scale"] == 256.0
