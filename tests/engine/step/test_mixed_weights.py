"""Losses with and without a weight in one window have no mean: that is an error, whatever the order."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update
from leyden.handlers import GradientAccumulation


def train(window, weights, *, together=False):
    """One batch for each weight, or, `together`, one with all of them; gives the weights of the model and the steps."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)

    def step(engine, batch):
        for x, weight in batch:
            with update.forward():
                loss = (model(x) - 1).square().mean()
            update.accumulate(loss, weight=weight)
        update.close()

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    engine.attach(*([GradientAccumulation(window)] if window > 1 else []))
    parts = [(torch.full((3, 2), float(place)), weight) for place, weight in enumerate(weights, 1)]
    engine.run([parts] if together else [[part] for part in parts])
    return model.weight.detach(), update.steps


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("weights", "said"), [([2.0, None], "has no weight, but"), ([None, 2.0], "has a weight, but")])
def test_in_a_window_and_in_a_batch(weights, said, together) -> None:
    with pytest.raises(ValueError, match=said):
        train(1 if together else 2, weights, together=together)


def test_windows_may_differ() -> None:
    with_weights, steps = train(2, [3.0, 3.0, None, None])
    without, _ = train(2, [None] * 4)
    assert steps == 2
    torch.testing.assert_close(with_weights, without)
