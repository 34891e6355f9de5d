"""Who steps the optimizer, and numbers of gradients that ranks with other parts of the model join."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update
from leyden.handlers import ClipGradients, MixedPrecision


def made(*handlers, fused=False, before=lambda update: None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)

    def step(engine, batch):
        with update.forward():
            loss = model(batch).square().mean()
        update.backward(loss)

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    before(update)
    engine.attach(*handlers)
    return engine, update, model


def batches():
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(4, 2, 3, generator=generator))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scale", [None, 8.0, 2.0**127])
def test_a_stepper_steps_in_the_place_of_the_optimizer(scale, fused) -> None:
    stepped = []

    def stepper(optimizer):
        stepped.append(optimizer)
        optimizer.step()

    handlers = [] if scale is None else [MixedPrecision("fp16", init_scale=scale)]
    engine, update, model = made(
        *handlers, fused=fused, before=lambda update: update.slots.claim("stepper", "XLA", stepper)
    )
    engine.run(batches(), max_epochs=1)
    twin_engine, twin, twin_model = made(*([] if scale is None else [MixedPrecision("fp16", init_scale=scale)]))
    twin_engine.run(batches(), max_epochs=1)
    assert stepped == [update.optimizer] * twin.steps
    assert update.steps == twin.steps
    assert twin.steps == 4 if scale != 2.0**127 else twin.steps < 4
    for one, other in zip(model.parameters(), twin_model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
def test_a_norm_is_joined_with_that_of_other_stages(norm_type) -> None:
    """As if another rank's part of the model had just the gradients of this one."""
    asked = []

    def join(number, operation):
        asked.append(operation)
        return number * 2 if operation == "sum" else number

    clip = ClipGradients(norm=1e-3, norm_type=norm_type)
    engine, _, model = made(clip, before=lambda update: update.slots.claim("join", "pipeline", join))
    engine.run(batches()[:1], max_epochs=1)
    joined = float(engine.state.metrics["grad_norm"])
    alone, _, _ = made(ClipGradients(norm=1e-3, norm_type=norm_type))
    alone.run(batches()[:1], max_epochs=1)
    factor = 1 if norm_type == float("inf") else 2 ** (1 / norm_type)
    assert joined == pytest.approx(float(alone.state.metrics["grad_norm"]) * factor)
    assert asked == ["max" if norm_type == float("inf") else "sum"]
    assert model is not None


def test_an_overflow_of_another_stage_skips_the_step_here() -> None:
    overflows = iter([0.0, 1.0, 0.0, 0.0])

    def join(number, operation):
        assert operation == "max"
        return torch.maximum(number, torch.tensor(next(overflows)))

    engine, update, _ = made(
        MixedPrecision("fp16", init_scale=8.0), before=lambda update: update.slots.claim("join", "pipeline", join)
    )
    engine.run(batches(), max_epochs=1)
    assert update.steps == 3
    assert update.slots.scaler.state_dict()["scale"] == 4.0


def test_autocast_and_scaler_go_by_the_engines_device() -> None:
    """Parameters may be offloaded: these are on a device that computes nothing."""
    model = nn.Linear(3, 1, device="meta")
    engine = Engine(lambda engine, batch: seen.append(update.slots.autocast.device))
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    seen = []
    engine.attach(MixedPrecision("bf16"))
    engine.run([None], max_epochs=1)
    assert seen == [engine.device.type]
