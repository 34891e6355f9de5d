"""A step that goes backward from what is neither a loss nor several is told what it gave."""

import pytest
import torch
from torch import nn

from leyden.engine import Engine, Update


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        (lambda loss: [], ValueError, "the list is empty"),
        (lambda loss: 1.0, TypeError, "a tensor, or a list of them, but got 1.0"),
        (lambda loss: None, TypeError, "a tensor, or a list of them, but got None"),
        (lambda loss: {"loss": loss}, TypeError, r"a tensor, or a list of them, but got \{'loss': tensor"),
        (lambda loss: [loss, None], TypeError, "the list has None"),
    ],
)
def test_what_is_no_loss_is_told(given, error, told) -> None:
    model = nn.Linear(2, 1)

    def step(engine, batch):
        with update.forward():
            loss = model(batch).sum()
        update.backward(given(loss))

    engine = Engine(step)
    update = Update(engine, model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(error, match=f"an update goes backward from a loss.*{told}"):
        engine.run([torch.ones(1, 2)], max_epochs=1)
    assert update.steps == 0
