"""An optimizer that compares losses (LBFGS) finds the same on all ranks: that of their batches put together."""

import pytest
import torch
from line_search_cases import batches, lbfgs, net, trained
from torch import nn

SEARCHES = [None, "strong_wolfe"]

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def outcomes(on_two_ranks):
    return on_two_ranks(*((trained, search) for search in SEARCHES))


def by_hand(search):
    model, losses = net(), []
    optimizer = lbfgs(model, search)
    for x, y in batches() * 2:

        def evaluate(x=x, y=y):
            optimizer.zero_grad()
            loss = sum(nn.functional.mse_loss(model(x[rank]), y[rank]) for rank in range(2)) / 2
            loss.backward()
            return loss

        losses.append(optimizer.step(evaluate).item())
    return losses, [each.tolist() for each in model.parameters()]


@pytest.mark.parametrize("search", SEARCHES)
def test_ranks_step_as_one_process_would(outcomes, search) -> None:
    losses, weights = by_hand(search)
    assert outcomes["trained", search][0] == outcomes["trained", search][1]
    for found, ours in outcomes["trained", search]:
        assert found == pytest.approx(losses, rel=1e-4)
        for mine, theirs in zip(ours, weights, strict=True):
            assert torch.allclose(torch.tensor(mine), torch.tensor(theirs), atol=1e-4)
