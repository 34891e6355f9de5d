"""A window counts the update's backward passes, however many an iteration has; what weights can't do is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Events, Update, UpdateEvents
from leyden.handlers import GradientAccumulation

SCRIPT = Path(__file__).parent / "scripts" / "sharded_by_hand.py"


def made():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def parts(number):
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(number, 4, 3, generator=generator))


def trainer(model, optimizer, *handlers, every=1, weight=None):
    """A step that goes backward from each part of its batch, in each `every`-th iteration."""

    def step(engine, batch):
        if engine.state.iteration % every == 0:
            for part in batch:
                with update.forward():
                    loss = model(part).square().mean()
                update.backward(loss, weight=weight)

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    engine.attach(*handlers)
    return engine, update


def by_hand(windows):
    model, optimizer = made()
    for window in windows:
        optimizer.zero_grad()
        for part in window:
            (model(part).square().mean() / len(window)).backward()
        optimizer.step()
    return model


def assert_same(ours, theirs):
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weight", [None, 2.0])
@pytest.mark.parametrize(("passes", "iterations", "window"), [(2, 5, 4), (2, 3, 4), (3, 4, 5), (2, 2, 3), (2, 4, 2)])
def test_several_passes_an_iteration(passes, iterations, window, weight) -> None:
    all_parts = parts(passes * iterations)
    batches = [all_parts[start : start + passes] for start in range(0, len(all_parts), passes)]
    model, optimizer = made()
    engine, update = trainer(model, optimizer, GradientAccumulation(window), weight=weight)
    engine.run(batches, max_epochs=1)
    windows = [all_parts[start : start + window] for start in range(0, len(all_parts), window)]
    assert_same(model, by_hand(windows))
    assert update.steps == len(windows)


def test_a_pass_every_other_iteration() -> None:
    all_parts = parts(9)
    model, optimizer = made()
    engine, update = trainer(model, optimizer, GradientAccumulation(3), every=2)
    engine.run([[part] for part in all_parts], max_epochs=1)
    assert_same(model, by_hand([all_parts[1:6:2], all_parts[7:8]]))
    assert update.steps == 2


def test_a_second_epoch_and_a_resume_count_the_same() -> None:
    all_parts = parts(6)
    batches = [all_parts[start : start + 2] for start in range(0, 6, 2)]

    def run(stop):
        model, optimizer = made()
        engine, update = trainer(model, optimizer, GradientAccumulation(4))
        if stop is None:
            engine.run(batches, max_epochs=2)
            return model, update
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop), engine.interrupt)
        engine.run(batches, max_epochs=2)
        state, weights = engine.state_dict(), {key: value.clone() for key, value in model.state_dict().items()}
        model, optimizer = made()
        model.load_state_dict(weights)
        engine, update = trainer(model, optimizer, GradientAccumulation(4))
        engine.load_state_dict(state)
        engine.run(batches, max_epochs=2)
        return model, update

    straight, update = run(None)
    assert_same(straight, by_hand([all_parts[:4], all_parts[4:]] * 2))
    assert update.steps == 4
    for stop in range(1, 6):
        resumed, update = run(stop)
        assert_same(resumed, straight)
        assert update.steps == 4


def test_a_closure_takes_no_weight() -> None:
    model, _ = made()
    optimizer = torch.optim.LBFGS(model.parameters())

    def step(engine, batch):
        return update.step(lambda: model(batch).square().mean())

    engine = Engine(step)
    update = Update(engine, model, optimizer)
    engine.attach(GradientAccumulation(1, weight=len))
    with pytest.raises(RuntimeError, match="GradientAccumulation with weights can't work with a closure"):
        engine.run(parts(2), max_epochs=1)


def test_a_model_sharded_or_wrapped_by_hand_takes_no_weight_that_nobody_adds_up() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout.splitlines()[-1]):
        assert found["by the handler"].startswith(
            'update "default" weighs its batches, but its model was sharded by hand'
        )
        assert found["by backward"] == found["by the handler"]
        assert found["without"] == "trained"
        assert found["steps when refused"] == 0
        for where in ("by the handler", "by backward"):
            error, steps = found[f"wrapped, {where}"]
            assert error.startswith('update "default" weighs its batches, but its model was wrapped by hand')
            assert steps == 0
        assert found["wrapped, with replicas"] == found["wrapped, without"] == "trained"


def test_events_count_steps_not_passes() -> None:
    model, optimizer = made()
    engine, _ = trainer(model, optimizer, GradientAccumulation(2))
    steps = []
    engine.add_event_handler(UpdateEvents.STEP_COMPLETED, lambda engine: steps.append(engine.state.iteration))
    engine.run([parts(2)] * 3, max_epochs=1)
    assert steps == [1, 2, 3]
